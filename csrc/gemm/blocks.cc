// SPDX-License-Identifier: Apache-2.0
#include "gemm/blocks.h"

#include <algorithm>

#include "core/cache_sizes.h"

namespace vllm {

// The part of the panels that is multiplied at a time takes a quarter of the second-level cache,
// from which it is loaded for each tile of rows; the part that is prefetched meanwhile takes
// another one. Parts that fit into the first-level cache were 6 % slower: the sums are then loaded
// and stored more often.
VectorBlocks GetVectorBlocks(int64_t words, int64_t panels) {
  constexpr int64_t kMostRows = 384, kLeastRows = 48, kPanelBytes = 64, kStep = 16;
  const auto cache = static_cast<int64_t>(GetCacheSizes().second);
  const int64_t rows = kBlockWords / std::max<int64_t>(words, 1) / kLeastRows * kLeastRows;
  return {std::clamp(rows, kLeastRows, kMostRows),
          cache / 4 / (panels * kPanelBytes) / kStep * kStep};
}

}  // namespace vllm
