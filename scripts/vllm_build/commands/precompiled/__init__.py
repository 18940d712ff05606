# SPDX-License-Identifier: Apache-2.0
"""Subcommands about compiled kernels that are reused, published or audited."""
