// SPDX-License-Identifier: Apache-2.0
#include "cache/slot_mapping.h"

#include <stdexcept>
#include <string>

#include "core/cpu_parallel.h"

namespace vllm {
namespace {

[[noreturn]] void Fail(int64_t token, int64_t request, const std::string& what) {
  throw std::runtime_error("compute_slot_mapping_kernel_impl: token " + std::to_string(token) +
                           " of request " + std::to_string(request) + " has " + what);
}

// Computes the slots of a request, or only checks that it can.
template <bool kWrite>
void ComputeRequest(const RequestBlocks& batch, int64_t request, int64_t* slots) {
  const int32_t* blocks = batch.blocks + request * batch.row_stride;
  // The positions of a request mostly follow each other, so that few of them need a division.
  // Before the first one, no position is in the current block.
  int64_t first = -batch.block_size, slot = 0;
  for (int64_t token = batch.starts[request]; token < batch.starts[request + 1]; ++token) {
    const int64_t position = batch.positions[token];
    if (position < first || position - first >= batch.block_size || position < 0) {
      const int64_t column = position / batch.block_size;
      if (position < 0 || column >= batch.columns) {
        Fail(token, request,
             "position " + std::to_string(position) + ", expected one of the " +
                 std::to_string(batch.columns) + " blocks of " + std::to_string(batch.block_size) +
                 " tokens that block_table has for it");
      }
      if (blocks[column] < 0) {
        Fail(token, request,
             "block " + std::to_string(blocks[column]) + " in block_table, expected at least 0");
      }
      first = column * batch.block_size;
      slot = int64_t{blocks[column]} * batch.block_size;
    }
    if constexpr (kWrite) slots[token] = slot + (position - first);
  }
}

template <bool kWrite>
void ComputeBatch(const RequestBlocks& batch, int64_t* slots) {
  const int64_t tokens = int64_t{batch.starts[batch.requests]} - batch.starts[0];
  ParallelFor(batch.requests, tokens / batch.requests, [&](int64_t begin, int64_t end) {
    for (int64_t request = begin; request < end; ++request)
      ComputeRequest<kWrite>(batch, request, slots);
  });
}

}  // namespace

void ComputeSlots(const RequestBlocks& batch, int64_t* slots) {
  if (batch.requests == 0) return;
  ComputeBatch<false>(batch, slots);
  ComputeBatch<true>(batch, slots);
}

}  // namespace vllm
