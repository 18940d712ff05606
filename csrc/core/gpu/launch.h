// SPDX-License-Identifier: Apache-2.0
// Launches kernels on the current device's current stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/gpu/gpu.h"
#include "core/gpu/stream.h"

namespace vllm::gpu {

// Bytes of dynamic shared memory that a kernel can use without opting in. Launch opts in for more.
inline constexpr size_t kSharedWithoutAsking = 48 * 1024;

#if !defined(VLLM_GPU_EMULATION)

#define VLLM_STRING_OF_(...) #__VA_ARGS__
#define VLLM_STRING_OF(...) VLLM_STRING_OF_(__VA_ARGS__)
#if defined(__CUDA_ARCH_LIST__)
inline constexpr const char* kArchitectures = VLLM_STRING_OF(__CUDA_ARCH_LIST__);
#elif defined(VLLM_HIP_ARCHITECTURES)  // of the plan: clang has no such macro
inline constexpr const char* kArchitectures = VLLM_STRING_OF(VLLM_HIP_ARCHITECTURES);
#else
inline constexpr const char* kArchitectures = "";
#endif

#endif

// Runs `kernel` with one thread block of `threads` threads for each of `blocks`. Launches nothing
// if there are no blocks.
//
// Throws std::runtime_error if no code of the kernel fits the device or the launch fails. Errors of
// earlier kernels are not checked.
template <typename... Parameters, typename... Arguments>
void Launch(const char* name, void (*kernel)(Parameters...), dim3 blocks, int threads,
            size_t shared, Arguments&&... arguments) {
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return;
#if defined(VLLM_GPU_EMULATION)
  (void)name;
  emulation::Run(blocks, threads, shared, [=] { kernel(static_cast<Parameters>(arguments)...); });
#else
  const auto run = [&](Parameters... parameters) {
    void* addresses[] = {const_cast<void*>(static_cast<const void*>(&parameters))..., nullptr};
    const dim3 size(static_cast<unsigned>(threads));
#if defined(__HIPCC__)
    const auto stream = static_cast<hipStream_t>(GetCurrentStream());
    hipError_t error = hipSuccess;
    error = hipLaunchKernel(reinterpret_cast<const void*>(kernel), blocks, size, addresses, shared,
                            stream);
#else
    const auto stream = static_cast<cudaStream_t>(GetCurrentStream());
    cudaError_t error = cudaSuccess;
    if (shared > kSharedWithoutAsking) {
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared));
    }
    if (error == cudaSuccess)
      error = cudaLaunchKernel(reinterpret_cast<const void*>(kernel), blocks, size, addresses,
                               shared, stream);
#endif
    if (error != 0) FailLaunch(name, static_cast<int>(error), kArchitectures);
  };
  run(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
#endif
}

// Returns the number of blocks for `count` pieces of work if one block does `each`, limited to the
// maximum size of a grid along x. Kernels iterate with the grid as stride.
inline unsigned ChooseBlocks(int64_t count, int64_t each) {
  constexpr int64_t kMost = 0x7fffffff;
  const int64_t blocks = (count + each - 1) / each;
  return static_cast<unsigned>(blocks < kMost ? blocks : kMost);
}

}  // namespace vllm::gpu
