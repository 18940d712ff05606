// SPDX-License-Identifier: Apache-2.0
// Words in memory that kernels on several GPUs tell one another something by.
#pragma once

#include <cstdint>

#include "core/gpu/gpu.h"

namespace vllm::gpu {

// Stores for all GPUs of the machine; what this thread has written before, and what it has seen at
// a barrier of its block, comes first.
__device__ __forceinline__ void StoreRelease(uint32_t* at, uint32_t value) {
#if defined(VLLM_GPU_EMULATION)
  *at = value;
  emulation::SomethingHappened();
#elif defined(__HIPCC__)
  __hip_atomic_store(at, value, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_SYSTEM);
#else
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
#endif
}

// Loads what any GPU has stored last; what came before that store is seen by what follows.
__device__ __forceinline__ uint32_t LoadAcquire(const uint32_t* at) {
#if defined(VLLM_GPU_EMULATION)
  emulation::LetOthersRun();
  return *at;
#elif defined(__HIPCC__)
  return __hip_atomic_load(at, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_SYSTEM);
#else
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
#endif
}

}  // namespace vllm::gpu
