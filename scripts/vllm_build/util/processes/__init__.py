# SPDX-License-Identifier: Apache-2.0
"""Starts programs and ends them: nothing that a build started outlives it."""
