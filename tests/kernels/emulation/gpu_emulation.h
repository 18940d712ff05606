// SPDX-License-Identifier: Apache-2.0
// Runs GPU kernels on the CPU, for tests of what they compute on machines without a GPU: what
// core/gpu/gpu.h takes from a toolkit elsewhere.
//
// The blocks of a launch run one after the other, the threads of a block as fibers of one thread. A
// fiber runs until it has to wait, at a barrier or in a shuffle, so that code without barriers that
// needs them gives wrong results: threads do not advance together, and every second block has them
// in the reverse order. What a GPU leaves undefined ends the process with a message: a barrier or a
// shuffle that not all threads of the block or the warp reach. Memory of kernels is ordinary
// memory, so AddressSanitizer finds what lies outside of it.
//
// What this says nothing about: speed, alignment that a GPU insists on (checked by Pack's alignment
// under UndefinedBehaviorSanitizer), orders of memory between blocks, and code that uses
// instructions of a GPU by name, but for those of hopper_emulation.h.
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

// The thread that runs.
struct Thread {
  dim3 thread, block, blocks, threads;
};
extern Thread current;

// Runs `body` for every thread of every block.
void Run(dim3 blocks, int threads, size_t shared, std::function<void()> body);

// For threads that look again and again at what another thread is to write; and for those that
// write it.
void LetOthersRun();
void SomethingHappened();

void* DynamicSharedMemory();
void BlockBarrier();

// Dynamic shared memory of the block that runs, and its size.
std::pair<unsigned char*, size_t> SharedMemory();

// Ends the process: a GPU forbids what a thread does, or leaves open what comes of it.
[[noreturn]] void Fail(const char* what);

// What goes on in a block beside its threads.
class Asynchronous {
 public:
  virtual ~Asynchronous() = default;
  // Does some of it; false when there is nothing to do.
  virtual bool Step() = 0;
  // A thread of the block has ended, and is still the one that runs.
  virtual void Ended(unsigned thread) = 0;
};
// That of the block that runs; null until someone sets it.
std::unique_ptr<Asynchronous>& AsynchronousOfBlock();

// Leaves `size` bytes for the lanes of the warp, waits for all of them, and brings what lane `lane`
// left.
void Exchange(const void* mine, void* theirs, size_t size, unsigned lane);
// Waits for all lanes of the warp; bit i is what lane i has.
uint32_t Ballot(bool value);

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
inline void __syncwarp() {
  const int nothing = 0;
  int other;
  ::vllm::gpu::emulation::Exchange(&nothing, &other, sizeof(nothing), 0);
}

// One thread runs at a time: what is one step for the others needs no more than this.
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
