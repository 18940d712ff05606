// SPDX-License-Identifier: Apache-2.0
// Matrices packed for instructions that multiply words of four bytes, which are two elements of
// bfloat16 or four of int8, and add the products to one sum: AVX-512's dot products, and AMX.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/cache_sizes.h"
#include "core/cpu_dispatch.h"

namespace vllm {

// The rows of a tile of AMX and the words of each, which are also the words and columns of a tile of
// B. A word of each of 16 columns is
// also one vector of AVX-512.
inline constexpr size_t kStripRows = 16;
inline constexpr size_t kTileWords = 16;
inline constexpr size_t kTileElements = kStripRows * kTileWords;
inline constexpr size_t kTileBytes = kTileElements * sizeof(uint32_t);

// A matrix B in panels of 16 columns, padded with zeros. In a panel, the words of the same rows of B
// are adjacent; 16 such rows of words are a tile.
struct WordPanels {
  const uint32_t* data = nullptr;  // aligned to cache lines
  size_t words = 0;                // of each column, padded with zeros to whole tiles
  size_t columns = 0;
};

// The number of rows above which tiles are used: below, a vector multiplies faster than memory
// delivers weights.
inline constexpr int64_t kVectorRows = 4;

// The sizes of blocks, for the caches of this machine.
struct WordBlocks {
  size_t rows;     // of A, a multiple of kStripRows
  size_t words;    // of A's rows, kept in the second-level cache
  size_t inner;    // of B's columns, kept in the first-level cache
  size_t columns;  // whose sums are kept in memory if the depth is more than `words`
};

// Returns the blocks for products with tiles. Each of B's words that is loaded from memory is
// multiplied with a block of rows. A block of A takes half of the second-level cache, and the inner
// words of two panels take two thirds of the first-level cache.
inline WordBlocks GetTileBlocks() {
  constexpr size_t kRows = 256;
  const CacheSizes& caches = GetCacheSizes();
  const size_t words = caches.second / 2 / (kRows * sizeof(uint32_t)) / kTileWords * kTileWords;
  const size_t inner = caches.first * 2 / 3 / (2 * kTileBytes) * kTileWords;
  return {kRows, std::max(words, kTileWords), std::max(inner, kTileWords), 2048};
}

// Returns the blocks for products with vectors. The inner words of four panels take two thirds of
// the first-level cache; A and the sums take half of the second-level cache.
inline WordBlocks GetVectorBlocks() {
  constexpr size_t kColumns = 512;
  const CacheSizes& caches = GetCacheSizes();
  const size_t inner = std::max(caches.first * 2 / 3 / (4 * kTileBytes), size_t{1}) * kTileWords;
  const size_t rows =
      caches.second / 2 / ((inner + kTileWords + kColumns) * sizeof(uint32_t)) / 48 * 48;
  return {std::clamp(rows, size_t{48}, size_t{384}), inner, inner, kColumns};
}

// Returns the rows of blocks of nearly the same size for `rows` rows.
inline int64_t GetWordBlockRows(int64_t rows) {
  const bool tiles = UsesAmx() && rows > kVectorRows;
  const int64_t most = static_cast<int64_t>((tiles ? GetTileBlocks() : GetVectorBlocks()).rows);
  const int64_t step = tiles ? 2 * static_cast<int64_t>(kStripRows) : 6;
  const int64_t blocks = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::max(step, ((rows + blocks - 1) / blocks + step - 1) / step * step);
}

}  // namespace vllm
