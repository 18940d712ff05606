# SPDX-License-Identifier: Apache-2.0
"""Subcommands that make, test and install packages and their toolchain."""
