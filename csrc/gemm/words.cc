// SPDX-License-Identifier: Apache-2.0
#include "gemm/words.h"

#include <algorithm>

#include "core/cache_sizes.h"
#include "core/cpu_dispatch.h"

namespace vllm {
namespace {

constexpr int64_t kVectorRows = 4;  // at most

size_t RoundDown(size_t n, size_t to) { return n / to * to; }

}  // namespace

bool UsesTiles(int64_t rows) { return rows > kVectorRows && UsesAmx(); }

// Each word of B that is loaded from memory is multiplied with a block of rows. A block of A takes
// half of the second-level cache. Dividing the depth further, so that two panels stay in the
// first-level cache, was 5 to 10 % slower: the sums are then loaded and stored more often.
WordBlocks GetTileBlocks() {
  constexpr size_t kRows = 256;
  const CacheSizes& caches = GetCacheSizes();
  const size_t words = RoundDown(caches.second / 2 / (kRows * sizeof(uint32_t)), kTileWords);
  return {kRows, std::max(words, kTileWords), 0, 2048};
}

// The inner words of four panels take two thirds of the first-level cache; A and the sums take half
// of the second-level cache.
WordBlocks GetVectorBlocks() {
  constexpr size_t kColumns = 512, kStep = 48, kMostRows = 384;
  const CacheSizes& caches = GetCacheSizes();
  const size_t inner = std::max(caches.first * 2 / 3 / (4 * kTileBytes), size_t{1}) * kTileWords;
  const size_t rows =
      RoundDown(caches.second / 2 / ((inner + kTileWords + kColumns) * sizeof(uint32_t)), kStep);
  return {std::clamp(rows, kStep, kMostRows), inner, inner, kColumns};
}

int64_t GetWordBlockRows(int64_t rows) {
  const bool tiles = UsesTiles(rows);
  const int64_t most = static_cast<int64_t>((tiles ? GetTileBlocks() : GetVectorBlocks()).rows);
  // Whole pairs of strips, or the rows of a tile of vectors.
  const int64_t step = tiles ? 2 * static_cast<int64_t>(kStripRows) : 6;
  const int64_t blocks = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::max(step, ((rows + blocks - 1) / blocks + step - 1) / step * step);
}

}  // namespace vllm
