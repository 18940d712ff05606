// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm::flash2 {

// The kernel that combines parts has no code for more.
inline constexpr int64_t kMostSplits = 128;

// Into how many parts the keys of a sequence are split so that a GPU with room for `slots` thread
// blocks at a time has work for most of them, when there are `tiles` thread blocks without
// splitting and `blocks` blocks of keys. At least 1.
int64_t ChooseSplits(int64_t tiles, int64_t slots, int64_t blocks);

}  // namespace vllm::flash2
