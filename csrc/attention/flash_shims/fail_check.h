// SPDX-License-Identifier: Apache-2.0
// FlashAttention 3's check of the CUDA runtime's answers ends the process where one is bad; this
// one throws. third_party/patches/flash-attention includes it behind the first.
#pragma once

#include "core/gpu/launch.h"

#undef CHECK_CUDA
#define CHECK_CUDA(call)                                                       \
  do {                                                                         \
    const cudaError_t vllm_error_ = (call);                                    \
    if (vllm_error_ != cudaSuccess) {                                          \
      vllm::gpu::FailLaunch("FlashAttention 3", static_cast<int>(vllm_error_), \
                            vllm::gpu::kArchitectures);                        \
    }                                                                          \
  } while (false)
