// SPDX-License-Identifier: Apache-2.0
// How rows are divided among blocks, and whether they can be read 16 bytes at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/gpu/launch.h"
#include "core/rows.h"

namespace vllm::gpu {

// Whether every row, of elements of `size` bytes, begins at a multiple of `bytes`.
inline bool RowsAligned(const Rows& rows, size_t size, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(rows.data) % bytes != 0) return false;
  for (int dim = 0; dim < rows.dims; ++dim) {
    if (rows.sizes[dim] > 1 && static_cast<uint64_t>(rows.strides[dim]) * size % bytes != 0) return false;
  }
  return true;
}

// Blocks for `count` rows of `steps` steps, of which a block of `threads` threads takes one a thread: pieces of a row along x, rows along
// y. Kernels walk on by the grid, so what does not fit into it is done as well.
inline dim3 RowBlocks(int64_t steps, int64_t count, int threads) {
  constexpr int64_t kMostRows = 65535;
  return dim3(BlocksFor(steps, threads), static_cast<unsigned>(std::min(count, kMostRows)));
}

// Threads for a block that walks over one row of `steps` steps: a multiple of a warp, up to `most`.
inline int ThreadsFor(int64_t steps, int most) {
  return static_cast<int>(std::clamp<int64_t>((steps + kWarp - 1) / kWarp * kWarp, kWarp, most));
}

}  // namespace vllm::gpu
