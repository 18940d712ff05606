// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm::flash2 {

// The kernel that combines parts supports no more.
inline constexpr int64_t kMostSplits = 128;

// Returns into how many parts, at least 1, the keys of a sequence are split so that most slots of a
// GPU are busy. The GPU has room for `slots` thread blocks at a time; without splitting there are
// `tiles` thread blocks; `blocks` is the number of blocks of keys.
int64_t ChooseSplits(int64_t tiles, int64_t slots, int64_t blocks);

}  // namespace vllm::flash2
