// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm {

// Tokens of a batch that follow one another, as their slots do: slot + i belongs to token + i. All lie in one group of the cache.
struct Run {
  int64_t token = 0;
  int64_t slot = 0;
  int64_t tokens = 0;
};

inline constexpr int64_t kMaxRun = 16;

}  // namespace vllm
