# SPDX-License-Identifier: Apache-2.0
"""Allocators of device memory for torch: :mod:`vllm._kernels.cumem`."""
