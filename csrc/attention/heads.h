// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// The heads of tokens. Each row of `tokens` is one token; its head h begins at h * head_stride
// elements.
struct AttentionHeads {
  Rows tokens;
  int64_t heads = 0;
  int64_t head_stride = 0;

  // Returns the address of a token's head.
  template <typename T>
  T* Head(int64_t token, int64_t head) const {
    return tokens.Row<T>(token) + head * head_stride;
  }
};

}  // namespace vllm
