// SPDX-License-Identifier: Apache-2.0
// Divides the threads of a block into groups, each of which iterates over a short row.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/gpu/rows.h"

namespace vllm::gpu {

// `threads` threads in groups of 1 << lane_bits. A thread is number `threadIdx.x & (lanes - 1)` of
// group `threadIdx.x >> lane_bits`.
struct Groups {
  int threads = kWarp;
  int lane_bits = 0;

  __device__ __forceinline__ int lanes() const { return 1 << lane_bits; }
  __device__ __forceinline__ int count() const { return static_cast<int>(blockDim.x) >> lane_bits; }
  __device__ __forceinline__ int lane() const {
    return static_cast<int>(threadIdx.x) & (lanes() - 1);
  }
  __device__ __forceinline__ int group() const {
    return static_cast<int>(threadIdx.x) >> lane_bits;
  }
};

// Returns groups for rows of `steps` steps: one lane for each step, up to 1 << most_bits lanes; and
// as many groups as `rows` rows keep busy, up to `most_threads` threads.
inline Groups ChooseGroups(int64_t steps, int64_t rows, int most_bits, int most_threads) {
  Groups groups;
  while (groups.lane_bits < most_bits && (int64_t{1} << groups.lane_bits) < steps)
    ++groups.lane_bits;
  groups.threads = std::max(
      1 << groups.lane_bits,
      ChooseThreads(std::min<int64_t>(rows, most_threads) << groups.lane_bits, most_threads));
  return groups;
}

}  // namespace vllm::gpu
