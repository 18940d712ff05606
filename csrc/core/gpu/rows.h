// SPDX-License-Identifier: Apache-2.0
// Divides rows among blocks, and determines whether they can be read 16 bytes at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/gpu/launch.h"
#include "core/gpu/types.h"
#include "core/rows.h"

namespace vllm::gpu {

// Returns whether every row, with elements of `size` bytes, begins at a multiple of `bytes`.
inline bool AreRowsAligned(const Rows& rows, size_t size, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(rows.data) % bytes != 0) return false;
  for (int dim = 0; dim < rows.dims; ++dim) {
    if (rows.sizes[dim] > 1 && static_cast<uint64_t>(rows.strides[dim]) * size % bytes != 0)
      return false;
  }
  return true;
}

// Returns whether rows of T consist of whole packs at multiples of their size, and the
// corresponding rows of U of packs with the same number of elements.
template <typename T, typename U = T>
bool HasWholePacks(const Rows& rows) {
  return rows.width % kPerLoad<T> == 0 && AreRowsAligned(rows, sizeof(U), sizeof(U) * kPerLoad<T>);
}

// Returns whether each row begins where the previous one ends. This is true for at most one row.
inline bool IsOnePiece(const Rows& rows) {
  return rows.count <= 1 || (rows.dims == 1 && rows.strides[0] == rows.width);
}

// Returns contiguous rows as one row.
inline Rows JoinRows(Rows rows) {
  rows.width *= rows.count;
  rows.count = 1;
  rows.dims = 1;
  rows.sizes[0] = 1;
  rows.strides[0] = 0;
  return rows;
}

// Rows::Row for kernels, in little code: rows with more than one leading dimension are rare, and
// even code that does not run takes space in instruction caches.
template <typename T>
__device__ __forceinline__ T* GetRow(const Rows& rows, int64_t row) {
  int64_t offset = 0;
  if (rows.dims == 1) {
    offset = row * rows.strides[0];
  } else {
#pragma unroll 1
    for (int dim = rows.dims - 1; dim >= 0; --dim) {
      const int64_t rest = row / rows.sizes[dim];
      offset += (row - rest * rows.sizes[dim]) * rows.strides[dim];
      row = rest;
    }
  }
  return static_cast<T*>(rows.data) + offset;
}

// Returns the blocks for `count` rows of `steps` steps, if a block has `threads` threads with one
// step each: pieces of a row along x, rows along y. Kernels iterate with the grid as stride, so a
// grid smaller than the work is sufficient.
inline dim3 ChooseRowGrid(int64_t steps, int64_t count, int threads) {
  constexpr int64_t kMostRows = 65535;
  return dim3(ChooseBlocks(steps, threads), static_cast<unsigned>(std::min(count, kMostRows)));
}

// Returns the threads of a block that iterates over one row of `steps` steps: a multiple of a warp,
// up to `most`.
inline int ChooseThreads(int64_t steps, int most) {
  return static_cast<int>(std::clamp<int64_t>((steps + kWarp - 1) / kWarp * kWarp, kWarp, most));
}

}  // namespace vllm::gpu
