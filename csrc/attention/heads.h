// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// Heads of tokens: a row of `tokens` is one token, head h of it begins at h * head_stride elements.
struct AttentionHeads {
  Rows tokens;
  int64_t heads = 0;
  int64_t head_stride = 0;

  // Where a head of a token begins.
  template <typename T>
  T* Head(int64_t token, int64_t head) const {
    return tokens.Row<T>(token) + head * head_stride;
  }
};

}  // namespace vllm
