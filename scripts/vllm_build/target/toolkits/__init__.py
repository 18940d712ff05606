# SPDX-License-Identifier: Apache-2.0
"""Finds the toolkits of accelerators: CUDA, ROCm and oneAPI."""
