# SPDX-License-Identifier: Apache-2.0
"""Stores of built kernels: their layout, signatures, publishing and checking."""
