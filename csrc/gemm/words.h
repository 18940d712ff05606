// SPDX-License-Identifier: Apache-2.0
// Matrices packed for instructions that multiply words of four bytes, which are two elements of
// bfloat16 or four of int8, and add the products to one sum: AVX-512's dot products, and AMX.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vllm {

// The rows of a tile of AMX and the words of each, which are also the words and columns of a tile
// of B. A word of each of 16 columns is also one vector of AVX-512.
inline constexpr size_t kStripRows = 16;
inline constexpr size_t kTileWords = 16;
inline constexpr size_t kTileElements = kStripRows * kTileWords;
inline constexpr size_t kTileBytes = kTileElements * sizeof(uint32_t);

// A matrix B in panels of 16 columns, padded with zeros. In a panel, the words of the same rows of
// B are adjacent; 16 such rows of words are a tile.
struct WordPanels {
  const uint32_t* data = nullptr;  // aligned to cache lines
  size_t words = 0;                // of each column, padded with zeros to whole tiles
  size_t columns = 0;
};

// Returns whether a product of that many rows uses AMX. A few rows are multiplied faster by vectors
// than memory delivers weights.
bool UsesTiles(int64_t rows);

// The sizes of blocks of a product with tiles, for the caches of this machine.
struct TileBlocks {
  size_t rows;     // of A, a multiple of kStripRows
  size_t words;    // of A's rows, kept in the second-level cache
  size_t columns;  // whose sums are kept in memory if the depth is more than `words`
};

TileBlocks GetTileBlocks();

// The rows and panels whose sums are in registers at once in a product with vectors; see
// gemm/panel_tile-inl.h.
inline constexpr int64_t kWordTileRows = 8;
inline constexpr int64_t kWordTilePanels = 3;

// Returns the rows of blocks of nearly the same size for a product of `rows` rows of that many
// words.
int64_t GetWordBlockRows(int64_t rows, int64_t words);

}  // namespace vllm
