# SPDX-License-Identifier: Apache-2.0
"""Searches sources of kernels and decides whether each output is reused or compiled."""
