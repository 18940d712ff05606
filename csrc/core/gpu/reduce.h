// SPDX-License-Identifier: Apache-2.0
// Reductions over the threads of a warp and of a block.
#pragma once

#include "core/gpu/gpu.h"

namespace vllm::gpu {

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

// The larger of two numbers; one that is not NaN wins over NaN.
struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Min {
  __device__ __forceinline__ float operator()(float a, float b) const { return fminf(a, b); }
};

// Over the `kWidth` neighbouring lanes of each lane, in the same order whichever lane asks; every lane gets the result. All lanes of the
// warp take part.
template <int kWidth = kWarp, typename T, class Op>
__device__ __forceinline__ T WarpReduce(T value, Op op) {
#pragma unroll
  for (int mask = kWidth / 2; mask > 0; mask /= 2) value = op(value, ShuffleXor(value, mask));
  return value;
}

// Over the block, whose size is a multiple of a warp; every thread gets the result. `identity` changes nothing under op. One after the
// other may follow without a barrier of the caller's.
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

// Of two numbers at once, for the barriers of one.
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

}  // namespace vllm::gpu
