// SPDX-License-Identifier: Apache-2.0
// Where a token of the output of a gather is in the cache, for kernels on a GPU.
#pragma once

#include <cstdint>

#include "cache/cache.h"
#include "core/gpu/gpu.h"

namespace vllm::gpu {

struct TokenPlace {
  int64_t block = -1;  // -1: nowhere
  int64_t offset = 0;
};

// Of a cache of `blocks` blocks of `block_size` tokens. Whatever the tensors of `sequences` hold, a
// block is one of the cache's.
__device__ __forceinline__ TokenPlace PlaceOf(const Sequences& sequences, int64_t token,
                                              int64_t blocks, int64_t block_size) {
  const int64_t sequence = sequences.Of(token);
  if (sequence < 0 || token >= sequences.Bound(sequence + 1)) return {};
  const int64_t position = token - sequences.Bound(sequence) + sequences.Start(sequence);
  if (position < 0) return {};
  const int64_t column = position / block_size;
  if (column >= sequences.columns) return {};
  const int64_t block = sequences.Block(sequence, column);
  if (block < 0 || block >= blocks) return {};
  return {block, position - column * block_size};
}

}  // namespace vllm::gpu
