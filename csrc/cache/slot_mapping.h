// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm {

// The tokens of a batch and the blocks of their requests. The tokens of request r are
// [starts[r], starts[r + 1]); its blocks are blocks[r * row_stride + i] for i < columns.
struct RequestBlocks {
  const int32_t* starts = nullptr;
  const int64_t* positions = nullptr;
  const int32_t* blocks = nullptr;
  int64_t requests = 0;
  int64_t row_stride = 0;
  int64_t columns = 0;
  int64_t block_size = 0;
};

// Writes the slot of each token of the batch to `slots`: the number of its block times the size of
// a block, plus its place in the block. Throws std::runtime_error if a position has no block in the
// table, or if a block's number is negative; nothing is written then. The caller has checked
// `starts`.
void ComputeSlots(const RequestBlocks& batch, int64_t* slots);

}  // namespace vllm
