# SPDX-License-Identifier: Apache-2.0
"""Allocators of device memory that stand behind torch's: :mod:`vllm.device_allocator.cumem`."""
