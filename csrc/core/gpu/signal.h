// SPDX-License-Identifier: Apache-2.0
// Words in memory by which kernels on several GPUs signal each other.
#pragma once

#include <cstdint>

#include "core/gpu/gpu.h"

namespace vllm::gpu {

// Every thread of a block whose writes a signal announces calls this before the barrier of the
// block that precedes the signal.
//
// On NVIDIA GPUs, the signal's release covers what the barrier ordered before it (PTX ISA,
// "Causality order"). On AMD GPUs, a thread waits only for its own wave's writes to arrive, and a
// barrier of the block does not wait for them either: each wave must do so.
__device__ __forceinline__ void ReleaseWrites() {
#if defined(VLLM_GPU_EMULATION)
  emulation::ReleaseWrites();
#elif defined(__HIPCC__)
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");  // for the whole system
#endif
}

// Stores a value for all GPUs of the machine. Writes that this thread made, or that other threads
// of its block released (see ReleaseWrites) before their last barrier, become visible first.
__device__ __forceinline__ void StoreRelease(uint32_t* at, uint32_t value) {
#if defined(VLLM_GPU_EMULATION)
  emulation::CheckReleased();
  *at = value;
  emulation::SomethingHappened();
#elif defined(__HIPCC__)
  __hip_atomic_store(at, value, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_SYSTEM);
#else
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
#endif
}

// Loads the value that any GPU stored last. Everything written before that store is visible to
// later reads.
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
