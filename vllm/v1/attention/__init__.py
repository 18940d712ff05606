# SPDX-License-Identifier: Apache-2.0
"""Attention, under upstream's module paths."""
