# SPDX-License-Identifier: Apache-2.0
"""Starts and ends programs: no process that a build started outlives it."""
