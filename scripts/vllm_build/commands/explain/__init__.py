# SPDX-License-Identifier: Apache-2.0
"""Subcommands that show what a build would do, and why."""
