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
};

}  // namespace vllm
