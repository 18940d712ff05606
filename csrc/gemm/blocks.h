// SPDX-License-Identifier: Apache-2.0
// The sizes of the blocks into which the CPU's matrix products divide their operands.
#pragma once

#include <cstdint>

namespace vllm {

// The most rows of A in a block of a product of floats. The part of them that is multiplied at a
// time and the sums that are kept meanwhile fit into a second-level cache of 512 KiB.
inline constexpr int64_t kProductBlockRows = 96;

// The rows of A whose sums fit into registers in a product of floats. Blocks are multiples of it.
inline constexpr int64_t kProductTileRows = 6;
static_assert(kProductBlockRows % kProductTileRows == 0);

// The most memory of a thread for a block of rows of A, in words of four bytes: 4 MiB. Rows of more
// than 10,000 words make smaller blocks.
inline constexpr int64_t kBlockWords = int64_t{1} << 20;

// Returns the rows of blocks of nearly the same size for `rows` rows: at most `most` in a block,
// and multiples of `tile`.
inline int64_t GetBlockRows(int64_t rows, int64_t most, int64_t tile) {
  const int64_t blocks = rows < most ? 1 : (rows + most - 1) / most;
  const int64_t each = (rows + blocks - 1) / blocks;
  return each < tile ? tile : (each + tile - 1) / tile * tile;
}

// Returns the rows of a product of floats in a block.
inline int64_t GetProductBlockRows(int64_t rows) {
  return GetBlockRows(rows, kProductBlockRows, kProductTileRows);
}

// The blocks of a product with AVX-512 or AVX2 (gemm/panel_tile-inl.h).
struct VectorBlocks {
  int64_t rows;   // of A, a multiple of the rows of a tile
  int64_t inner;  // the words of A's rows, and rows of B, that are multiplied at a time
};

// Returns the blocks for rows of that many words on this machine, if so many panels are multiplied
// at once.
VectorBlocks GetVectorBlocks(int64_t words, int64_t panels);

}  // namespace vllm
