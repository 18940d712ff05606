# SPDX-License-Identifier: Apache-2.0
"""Subcommands that reuse, publish and audit compiled kernels."""
