// SPDX-License-Identifier: Apache-2.0
// Finds a token of a gather's output in the cache, for kernels on a GPU.
#pragma once

#include <cstdint>

#include "cache/cache.h"
#include "core/gpu/gpu.h"

namespace vllm::gpu {

struct TokenPlace {
  int64_t block = -1;  // -1: not in the cache
  int64_t offset = 0;
};

// Returns the place of a token in a cache of `blocks` blocks of `block_size` tokens. The block is
// always in the cache, even if the tensors of `sequences` have invalid contents.
__device__ __forceinline__ TokenPlace FindPlace(const Sequences& sequences, int64_t token,
                                                int64_t blocks, int64_t block_size) {
  const int64_t sequence = sequences.FindSequence(token);
  if (sequence < 0 || token >= sequences.GetBound(sequence + 1)) return {};
  const int64_t position = token - sequences.GetBound(sequence) + sequences.GetStart(sequence);
  if (position < 0) return {};
  const int64_t column = position / block_size;
  if (column >= sequences.columns) return {};
  const int64_t block = sequences.GetBlock(sequence, column);
  if (block < 0 || block >= blocks) return {};
  return {block, position - column * block_size};
}

}  // namespace vllm::gpu
