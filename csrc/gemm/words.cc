// SPDX-License-Identifier: Apache-2.0
#include "gemm/words.h"

#include <algorithm>

#include "core/cache_sizes.h"
#include "core/cpu_dispatch.h"
#include "gemm/blocks.h"

namespace vllm {
namespace {

constexpr int64_t kVectorRows = 4;  // at most

size_t RoundDown(size_t n, size_t to) { return n / to * to; }

}  // namespace

bool UsesTiles(int64_t rows) { return rows > kVectorRows && UsesAmx(); }

// Each word of B that is loaded from memory is multiplied with a block of rows. A block of A takes
// half of the second-level cache. Dividing the depth further, so that two panels stay in the
// first-level cache, was 5 to 10 % slower: the sums are then loaded and stored more often.
TileBlocks GetTileBlocks() {
  constexpr size_t kRows = 256;
  const CacheSizes& caches = GetCacheSizes();
  const size_t words = RoundDown(caches.second / 2 / (kRows * sizeof(uint32_t)), kTileWords);
  return {kRows, std::max(words, kTileWords), 2048};
}

int64_t GetWordBlockRows(int64_t rows, int64_t words) {
  if (!UsesTiles(rows))
    return GetBlockRows(rows, GetVectorBlocks(words, kWordTilePanels).rows, kWordTileRows);
  // Whole pairs of strips.
  return GetBlockRows(rows, static_cast<int64_t>(GetTileBlocks().rows), 2 * kStripRows);
}

}  // namespace vllm
