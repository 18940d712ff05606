# SPDX-License-Identifier: Apache-2.0
"""Checks of linked libraries: their dependencies, the ops they register, and their ABI."""
