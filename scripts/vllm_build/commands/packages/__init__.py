# SPDX-License-Identifier: Apache-2.0
"""Subcommands that build, test and install packages and their toolchain."""
