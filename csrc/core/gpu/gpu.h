// SPDX-License-Identifier: Apache-2.0
// The one place where CUDA and HIP differ in name. Kernels include this and nothing of either
// toolkit.
//
// A warp here is 32 neighbouring threads on both: AMD's wavefronts of 64 are two of them, and
// shuffles are told a width of 32.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(VLLM_GPU_EMULATION)
#include "gpu_emulation.h"
#elif defined(__HIPCC__)
#include <hip/hip_runtime.h>
#else
#include <cuda_runtime.h>
#endif

#include "core/device.h"

namespace vllm::gpu {

inline constexpr int kWarp = 32;

#if defined(VLLM_GPU_EMULATION)

using emulation::Ballot;
using emulation::Shuffle;
using emulation::ShuffleXor;
inline int PopCount(uint32_t bits) { return __builtin_popcount(bits); }

#elif defined(__HIPCC__)

template <typename T>
__device__ __forceinline__ T ShuffleXor(T value, int mask) {
  return __shfl_xor(value, mask, kWarp);
}
template <typename T>
__device__ __forceinline__ T Shuffle(T value, int lane) {
  return __shfl(value, lane, kWarp);
}
__device__ __forceinline__ uint32_t Ballot(bool value) {
  // Of all lanes of the wavefront; a warp here is a half of one that has 64.
  return static_cast<uint32_t>(__ballot(value) >> (__lane_id() / kWarp * kWarp));
}
__device__ __forceinline__ int PopCount(uint32_t bits) { return __popc(bits); }

#else

// The value of the lane whose number differs in the bits of `mask`. All lanes of the warp take
// part.
template <typename T>
__device__ __forceinline__ T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
// The value of lane `lane`. All lanes of the warp take part.
template <typename T>
__device__ __forceinline__ T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
// Bit i is what lane i has. All lanes of the warp take part.
__device__ __forceinline__ uint32_t Ballot(bool value) { return __ballot_sync(0xffffffffu, value); }
__device__ __forceinline__ int PopCount(uint32_t bits) { return __popc(bits); }

#endif

// Shared memory whose size the launch gives.
template <typename T>
__device__ __forceinline__ T* DynamicShared() {
#if defined(VLLM_GPU_EMULATION)
  return static_cast<T*>(emulation::DynamicSharedMemory());
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

// As std::min and std::max, which not every device compiler takes.
template <typename T>
VLLM_HOST_DEVICE constexpr T Lesser(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
VLLM_HOST_DEVICE constexpr T Greater(T a, T b) {
  return a < b ? b : a;
}

// Threads of a block are numbered along x alone in all kernels here.
__device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x % kWarp); }
__device__ __forceinline__ int Warp() { return static_cast<int>(threadIdx.x / kWarp); }

}  // namespace vllm::gpu
