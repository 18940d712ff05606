// SPDX-License-Identifier: Apache-2.0
// The sizes of the blocks into which the CPU's matrix products divide their operands.
#pragma once

#include <cstdint>

namespace vllm {

// The rows of A in a block. Their converted form and the sums that are kept meanwhile fit into a
// second-level cache of 512 KiB.
inline constexpr int64_t kProductBlockRows = 96;

// The rows of A whose sums fit into registers in a product of floats. Blocks are multiples of it.
inline constexpr int64_t kProductTileRows = 6;
static_assert(kProductBlockRows % kProductTileRows == 0);

// Returns the rows of blocks of the same size, in whole tiles, for `rows` > 0 rows.
inline int64_t GetProductBlockRows(int64_t rows) {
  const int64_t blocks = (rows + kProductBlockRows - 1) / kProductBlockRows;
  return ((rows + blocks - 1) / blocks + kProductTileRows - 1) / kProductTileRows *
         kProductTileRows;
}

}  // namespace vllm
