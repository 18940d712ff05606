# SPDX-License-Identifier: Apache-2.0
"""Errors, files, locks, paths and output, for all parts of the build."""
