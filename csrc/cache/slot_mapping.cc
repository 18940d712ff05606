// SPDX-License-Identifier: Apache-2.0
#include "cache/slot_mapping.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/cpu_parallel.h"

namespace vllm {
namespace {

[[noreturn]] void Fail(int64_t token, int64_t request, const std::string& what) {
  throw std::runtime_error("compute_slot_mapping_kernel_impl: token " + std::to_string(token) +
                           " of request " + std::to_string(request) + " has " + what);
}

// Whether n positions follow each other. They may be any numbers, so differences are computed
// without a sign.
bool AreConsecutive(const int64_t* positions, int64_t n) {
  const auto get = [&](int64_t i) { return static_cast<uint64_t>(positions[i]); };
  const uint64_t first = get(0);
  if (get(n - 1) - first != static_cast<uint64_t>(n - 1)) return false;
  // Without an early end, so that compilers use vectors.
  uint64_t different = 0;
  for (int64_t i = 0; i < n; ++i) different |= (get(i) - static_cast<uint64_t>(i)) ^ first;
  return different == 0;
}

// Computes the slots of the n tokens from `token` on, whose positions follow each other, or only
// checks that it can.
template <bool kWrite>
void ComputeRun(const RequestBlocks& batch, int64_t request, int64_t token, int64_t n,
                int64_t* slots) {
  const int32_t* blocks = batch.blocks + request * batch.row_stride;
  const int64_t position = batch.positions[token];
  int64_t column = position / batch.block_size, place = position % batch.block_size;
  for (int64_t i = 0; i < n; ++column, place = 0) {
    if (position < 0 || column >= batch.columns) {
      Fail(token + i, request,
           "position " + std::to_string(position + i) + ", expected one of the " +
               std::to_string(batch.columns) + " blocks of " + std::to_string(batch.block_size) +
               " tokens that block_table has for it");
    }
    if (blocks[column] < 0) {
      Fail(token + i, request,
           "block " + std::to_string(blocks[column]) + " in block_table, expected at least 0");
    }
    const int64_t end = std::min(n, i + batch.block_size - place);
    if constexpr (kWrite) {
      const int64_t slot = int64_t{blocks[column]} * batch.block_size + place - i;
      for (; i < end; ++i) slots[token + i] = slot + i;
    }
    i = end;
  }
}

// The same for the tokens of a request. `run` says whether all their positions follow each other.
template <bool kWrite>
void ComputeRequest(const RequestBlocks& batch, int64_t request, bool run, int64_t* slots) {
  const int64_t begin = batch.starts[request], end = batch.starts[request + 1];
  if (run) return ComputeRun<kWrite>(batch, request, begin, end - begin, slots);
  for (int64_t token = begin; token < end; ++token)
    ComputeRun<kWrite>(batch, request, token, 1, slots);
}

}  // namespace

void ComputeSlots(const RequestBlocks& batch, int64_t* slots) {
  if (batch.requests == 0) return;
  std::vector<unsigned char> runs(static_cast<size_t>(batch.requests));
  const auto run = [&](int64_t request) -> unsigned char& {
    return runs[static_cast<size_t>(request)];
  };
  // A token counts as four elements: two numbers of 64 bits.
  const int64_t tokens = int64_t{batch.starts[batch.requests]} - batch.starts[0];
  const int64_t elements = 4 * tokens / batch.requests;
  ParallelFor(batch.requests, elements, [&](int64_t begin, int64_t end) {
    for (int64_t request = begin; request < end; ++request) {
      const int64_t first = batch.starts[request], n = batch.starts[request + 1] - first;
      if (n == 0) continue;
      run(request) = AreConsecutive(batch.positions + first, n) ? 1 : 0;
      ComputeRequest<false>(batch, request, run(request) != 0, slots);
    }
  });
  ParallelFor(batch.requests, elements, [&](int64_t begin, int64_t end) {
    for (int64_t request = begin; request < end; ++request)
      ComputeRequest<true>(batch, request, run(request) != 0, slots);
  });
}

}  // namespace vllm
