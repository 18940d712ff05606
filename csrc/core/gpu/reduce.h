// SPDX-License-Identifier: Apache-2.0
// Reductions over the threads of a warp and of a block.
#pragma once

#include "core/extremes.h"
#include "core/gpu/gpu.h"

namespace vllm::gpu {

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

// The larger of two numbers. Neither is NaN, because threads contribute results of LargerNumber.
struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return LargerNumber(a, b); }
};

// Reduces over the `kWidth` adjacent lanes of each lane. The order does not depend on the lane, and
// every lane gets the result. All lanes of the warp must call it.
template <int kWidth = kWarp, typename T, class Op>
__device__ __forceinline__ T WarpReduce(T value, Op op) {
#pragma unroll
  for (int mask = kWidth / 2; mask > 0; mask /= 2) value = op(value, ShuffleXor(value, mask));
  return value;
}

// Reduces over the block, whose size is a multiple of a warp; every thread gets the result.
// `identity` is the identity of op. Successive calls need no barrier between them.
template <typename T, class Op>
__device__ __forceinline__ T BlockReduce(T value, T identity, Op op) {
  __shared__ T partial[kWarp];
  value = WarpReduce(value, op);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if (warps == 1) return value;
  if (Lane() == 0) partial[Warp()] = value;
  __syncthreads();
  value = WarpReduce(Lane() < warps ? partial[Lane()] : identity, op);
  __syncthreads();  // partial may be written again
  return value;
}

// Reduces two numbers at once, with the barriers of one reduction.
template <class Op>
__device__ __forceinline__ void BlockReduceTwo(float& first, float& second, float identity, Op op) {
  __shared__ float partial[2][kWarp];
  first = WarpReduce(first, op);
  second = WarpReduce(second, op);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if (warps == 1) return;
  if (Lane() == 0) {
    partial[0][Warp()] = first;
    partial[1][Warp()] = second;
  }
  __syncthreads();
  first = WarpReduce(Lane() < warps ? partial[0][Lane()] : identity, op);
  second = WarpReduce(Lane() < warps ? partial[1][Lane()] : identity, op);
  __syncthreads();  // partial may be written again
}

// Returns the sum up to and including each lane's own value. All lanes of the warp must call it.
template <typename T>
__device__ __forceinline__ T WarpInclusiveSum(T value) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const T before = Shuffle(value, Lane() - distance);
    if (Lane() >= distance) value += before;
  }
  return value;
}

// Returns the sum up to and including each thread's own value, and sets `total` to the sum of the
// whole block. The same rules as for BlockReduce apply.
template <typename T>
__device__ __forceinline__ T BlockInclusiveSum(T value, T& total) {
  __shared__ T partial[kWarp];
  value = WarpInclusiveSum(value);
  if (Lane() == kWarp - 1) partial[Warp()] = value;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const T sums = WarpInclusiveSum(Lane() < warps ? partial[Lane()] : T());
  total = Shuffle(sums, kWarp - 1);
  const T before = Shuffle(sums, Warp() - 1);
  __syncthreads();  // partial may be written again
  return Warp() == 0 ? value : before + value;
}

}  // namespace vllm::gpu
