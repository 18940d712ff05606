// SPDX-License-Identifier: Apache-2.0
// Replaces the checks of torch's CUDA headers that FlashAttention's launches use, without torch's
// library.
#pragma once

#include "core/gpu/launch.h"

#define C10_CUDA_CHECK(call)                                                   \
  do {                                                                         \
    const cudaError_t vllm_error_ = (call);                                    \
    if (vllm_error_ != cudaSuccess) {                                          \
      vllm::gpu::FailLaunch("FlashAttention 2", static_cast<int>(vllm_error_), \
                            vllm::gpu::kArchitectures);                        \
    }                                                                          \
  } while (false)

#define C10_CUDA_KERNEL_LAUNCH_CHECK() C10_CUDA_CHECK(cudaGetLastError())
