// SPDX-License-Identifier: Apache-2.0
// The only file that distinguishes between the names of CUDA and HIP. Kernels include it and no
// header of a toolkit.
//
// A warp is 32 adjacent threads on both. An AMD wave of 64 threads is two warps, and shuffles are
// given a width of 32. The warps of a wave may be at different places of a kernel.
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

#if defined(VLLM_GPU_EMULATION) && !defined(VLLM_DEVICE_ROCM)

using emulation::Ballot;
using emulation::Shuffle;
using emulation::ShuffleXor;
using emulation::SyncWarp;
inline int PopCount(uint32_t bits) { return __builtin_popcount(bits); }

#elif defined(__HIPCC__) || defined(VLLM_DEVICE_ROCM)

// The emulation has HIP's functions for a wave, so that this code is tested too.
template <typename T>
__device__ __forceinline__ T ShuffleXor(T value, int mask) {
  return __shfl_xor(value, mask, kWarp);
}
template <typename T>
__device__ __forceinline__ T Shuffle(T value, int lane) {
  return __shfl(value, lane, kWarp);
}
__device__ __forceinline__ uint32_t Ballot(bool value) {
  // __ballot returns the bits of all lanes of the wavefront; in a wavefront of 64 threads, a warp
  // is one half.
  return static_cast<uint32_t>(__ballot(value) >> (__lane_id() / kWarp * kWarp));
}
__device__ __forceinline__ int PopCount(uint32_t bits) { return __popc(bits); }
// HIP has a function for it only from ROCm 7 on.
__device__ __forceinline__ void SyncWarp() {
#if defined(VLLM_GPU_EMULATION)
  emulation::SyncWarp();
#else
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
#endif
}

#else

// Returns the value of the lane whose number differs in the bits of `mask`. All lanes of the warp
// must call it.
template <typename T>
__device__ __forceinline__ T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
// Returns the value of lane `lane`. All lanes of the warp must call it.
template <typename T>
__device__ __forceinline__ T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
// Returns a mask in which bit i is the value of lane i. All lanes of the warp must call it.
__device__ __forceinline__ uint32_t Ballot(bool value) { return __ballot_sync(0xffffffffu, value); }
__device__ __forceinline__ int PopCount(uint32_t bits) { return __popc(bits); }
// Waits for all lanes of the warp. Their writes to memory are then visible to all of them.
__device__ __forceinline__ void SyncWarp() { __syncwarp(); }

#endif

// Returns shared memory whose size is set by the launch.
template <typename T>
__device__ __forceinline__ T* GetDynamicShared() {
#if defined(VLLM_GPU_EMULATION)
  return static_cast<T*>(emulation::DynamicSharedMemory());
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

// Like std::min and std::max, which some device compilers do not support.
template <typename T>
VLLM_HOST_DEVICE constexpr T Lesser(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
VLLM_HOST_DEVICE constexpr T Greater(T a, T b) {
  return a < b ? b : a;
}

// In all kernels here, the threads of a block are numbered along x only.
__device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x % kWarp); }
__device__ __forceinline__ int Warp() { return static_cast<int>(threadIdx.x / kWarp); }

}  // namespace vllm::gpu
