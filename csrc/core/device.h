// SPDX-License-Identifier: Apache-2.0
// The device that this library is for. A library has the kernels of one device; the bindings are
// the same for all devices.
#pragma once

// cmake/vllm_compile_options.cmake defines one of these macros. The tests' emulation runs GPU
// kernels on the CPU.
#if defined(VLLM_DEVICE_CUDA) || defined(VLLM_DEVICE_ROCM) || defined(VLLM_GPU_EMULATION)
#define VLLM_ON_GPU 1
#else
#define VLLM_ON_GPU 0
#endif

// Marks functions that both kernels and the host call.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define VLLM_HOST_DEVICE __host__ __device__
#else
#define VLLM_HOST_DEVICE
#endif

namespace vllm {

// On a GPU, the host may be unable to read the operands of kernels, and queued work may still write
// them. The bindings therefore check shapes and types on all devices, but contents on the CPU only;
// on a GPU the kernels check contents.
inline constexpr bool kOnGpu = VLLM_ON_GPU != 0;

}  // namespace vllm
