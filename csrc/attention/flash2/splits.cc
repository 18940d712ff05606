// SPDX-License-Identifier: Apache-2.0
#include "attention/flash2/splits.h"

#include <algorithm>

namespace vllm::flash2 {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

int64_t ChooseSplits(int64_t tiles, int64_t slots, int64_t blocks) {
  // If the GPU is four fifths full, splitting gains less than writing and combining the parts
  // costs.
  if (tiles * 5 >= slots * 4) return 1;
  const int64_t most = std::max<int64_t>(1, std::min({kMostSplits, slots, blocks}));
  // The fraction of its slots that the GPU uses until the last thread block finishes.
  const auto use = [&](int64_t splits) {
    const int64_t rounds = CeilDivide(tiles * splits, slots);
    return static_cast<double>(tiles * splits) / static_cast<double>(rounds * slots);
  };
  // If one more part does not make the parts shorter, it stays empty.
  const auto useful = [&](int64_t splits) {
    return splits == 1 || CeilDivide(blocks, splits) < CeilDivide(blocks, splits - 1);
  };
  double best = 0;
  for (int64_t splits = 1; splits <= most; ++splits) {
    if (useful(splits)) best = std::max(best, use(splits));
  }
  // Chooses the fewest parts that are nearly as good, because each part writes its result in
  // float32.
  int64_t splits = 1;
  while (!useful(splits) || use(splits) < 0.85 * best) ++splits;
  return splits;
}

}  // namespace vllm::flash2
