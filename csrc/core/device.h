// SPDX-License-Identifier: Apache-2.0
// Which device this library is for: a library has the kernels of one, and the bindings are the same
// for all.
#pragma once

// cmake/vllm_compile_options.cmake defines one of these. The tests' emulation runs GPU kernels on
// the CPU.
#if defined(VLLM_DEVICE_CUDA) || defined(VLLM_DEVICE_ROCM) || defined(VLLM_GPU_EMULATION)
#define VLLM_ON_GPU 1
#else
#define VLLM_ON_GPU 0
#endif

// Functions that kernels and the host call.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define VLLM_HOST_DEVICE __host__ __device__
#else
#define VLLM_HOST_DEVICE
#endif

namespace vllm {

// What kernels compute with may lie where the host can not read it, and work may still be queued
// that writes it: checks of shapes and types are the bindings' own everywhere, checks of contents
// are the bindings' on the CPU and the kernels' on a GPU.
inline constexpr bool kOnGpu = VLLM_ON_GPU != 0;

}  // namespace vllm
