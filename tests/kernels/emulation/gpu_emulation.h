// SPDX-License-Identifier: Apache-2.0
// Runs GPU kernels on the CPU, to test their results on machines without a GPU. This file replaces
// the parts of a toolkit that core/gpu/gpu.h uses.
//
// The blocks of a launch run one after the other, and the threads of a block are fibers of one
// thread. A fiber runs until it has to wait, at a barrier or in a shuffle. Threads therefore do not
// advance together, and every second block runs them in reverse order, so code that lacks a barrier
// gives wrong results. Behaviour that a GPU leaves undefined ends the process with a message, such
// as a barrier or a shuffle that not all threads of the block or the warp reach. Kernels use
// ordinary memory, so AddressSanitizer finds accesses outside of it.
//
// For ROCm, core/gpu/gpu.h is compiled as for HIP, with the functions of a wave that this file has
// instead of HIP's. VLLM_EMULATED_WAVE is the number of lanes of a wave, 64 or 32, and
// VLLM_EMULATED_CAPABILITY the version of the architecture: 94 for gfx942. A wave of 64 lanes is
// two warps, which run at their own pace: a GPU runs them together or one after the other, as their
// branches say.
//
// The emulation shows nothing about speed, alignment that a GPU requires
// (UndefinedBehaviorSanitizer checks Pack's alignment), memory order between blocks, and code that
// uses GPU instructions by name, except those of hopper_emulation.h.
#pragma once

#include <torch/headeronly/util/Half.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace vllm::gpu::emulation {

constexpr int kWarpSize = 32;
// Lanes of a wave: a warp, or two of them.
constexpr int kWave = VLLM_EMULATED_WAVE;
static_assert(kWave == 32 || kWave == 64);
// Ten times the major version, plus the minor one; 0 for CUDA, where nothing depends on it.
constexpr int kCapability = VLLM_EMULATED_CAPABILITY;

// The running thread.
struct Thread {
  dim3 thread, block, blocks, threads;
};
extern Thread current;

// Runs `body` for every thread of every block.
void Run(dim3 blocks, int threads, size_t shared, std::function<void()> body);

// LetOthersRun is for threads that poll memory that another thread will write; SomethingHappened is
// for the threads that write it.
void LetOthersRun();
void SomethingHappened();

void* DynamicSharedMemory();
void BlockBarrier();

// Dynamic shared memory of the running block, and its size.
std::pair<unsigned char*, size_t> SharedMemory();

// Ends the process, because a GPU forbids an action of a thread or leaves its result undefined.
[[noreturn]] void Fail(const char* what);

// Asynchronous work of a block.
class Asynchronous {
 public:
  virtual ~Asynchronous() = default;
  // Does a part of the work; returns false if there is none.
  virtual bool Step() = 0;
  // Called when a thread of the block has ended, while it is still the running one.
  virtual void Ended(unsigned thread) = 0;
};
// The asynchronous work of the running block; null until it is set.
std::unique_ptr<Asynchronous>& AsynchronousOfBlock();

// Offers `size` bytes to the lanes of the warp, or of the wave if `lanes` is kWave, waits for all
// of them, and fetches the bytes of lane `lane`.
void Exchange(const void* mine, void* theirs, size_t size, unsigned lane, int lanes = kWarpSize);
// Waits for all lanes of the warp; bit i is the value of lane i.
uint32_t Ballot(bool value);
// The same with a bit for each lane of the wave. The bits of the other warp are those of its last
// call, or arbitrary ones: on a GPU they depend on where that warp is.
uint64_t BallotOfWave(bool value);
// Waits for all lanes of the warp.
void SyncWarp();

// Writes by which kernels on several GPUs signal each other (core/gpu/signal.h). A signal that
// follows writes of other threads of the block ends the process, unless each of them has called
// ReleaseWrites before their last barrier.
void ReleaseWrites();
void CheckReleased();

template <typename T>
T Shuffle(T value, int lane) {
  static_assert(sizeof(T) <= 8);
  T result;
  Exchange(&value, &result, sizeof(T), static_cast<unsigned>(lane) % kWarpSize);
  return result;
}
template <typename T>
T ShuffleXor(T value, int mask) {
  return Shuffle(value, static_cast<int>(current.thread.x % kWarpSize) ^ mask);
}

inline float FloatOfHalf(uint16_t code) { return c10::detail::fp16_ieee_to_fp32_value(code); }
inline uint16_t HalfOfFloat(float x) { return c10::detail::fp16_ieee_from_fp32_value(x); }

}  // namespace vllm::gpu::emulation

#define threadIdx (::vllm::gpu::emulation::current.thread)
#define blockIdx (::vllm::gpu::emulation::current.block)
#define gridDim (::vllm::gpu::emulation::current.blocks)
#define blockDim (::vllm::gpu::emulation::current.threads)

inline void __syncthreads() { ::vllm::gpu::emulation::BlockBarrier(); }

#if defined(VLLM_DEVICE_ROCM)

// HIP's functions for a wave. `width` divides its lanes into groups that have nothing in common.
template <typename T>
T __shfl(T value, int lane, int width = ::vllm::gpu::emulation::kWave) {
  static_assert(sizeof(T) <= 8);
  T result;
  ::vllm::gpu::emulation::Exchange(&value, &result, sizeof(T),
                                   static_cast<unsigned>(lane) % static_cast<unsigned>(width),
                                   width);
  return result;
}
template <typename T>
T __shfl_xor(T value, int mask, int width = ::vllm::gpu::emulation::kWave) {
  return __shfl(value, static_cast<int>(threadIdx.x) % width ^ mask, width);
}
inline unsigned long long __ballot(int value) {
  return ::vllm::gpu::emulation::BallotOfWave(value != 0);
}
inline unsigned __lane_id() { return threadIdx.x % ::vllm::gpu::emulation::kWave; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

#endif

// One thread runs at a time, so plain code is atomic.
template <typename T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at = static_cast<T>(old + value);
  return old;
}
template <typename T>
T atomicMax(T* at, T value) {
  const T old = *at;
  if (value > old) *at = value;
  return old;
}
