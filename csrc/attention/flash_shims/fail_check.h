// SPDX-License-Identifier: Apache-2.0
// FlashAttention 3's own check of CUDA runtime errors ends the process; this one throws instead.
// third_party/patches/flash-attention includes it after the original.
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
