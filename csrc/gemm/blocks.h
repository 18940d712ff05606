// SPDX-License-Identifier: Apache-2.0
// Into which pieces the matrix products of the CPU cut their operands.
#pragma once

#include <cstdint>

namespace vllm {

// Rows of A in a block: what is made of them for the product, and the sums that are kept meanwhile,
// fit into a second-level cache of 512 KiB.
inline constexpr int64_t kProductBlockRows = 96;

// Rows of A whose sums the registers hold in a product of floats. Blocks are multiples of it.
inline constexpr int64_t kProductTileRows = 6;
static_assert(kProductBlockRows % kProductTileRows == 0);

}  // namespace vllm
