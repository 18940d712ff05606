// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/heads.h"
#include "bindings/arguments.h"

namespace vllm {

// Checks a tensor of [tokens, heads, head_size], whose elements are adjacent.
inline AttentionHeads CheckHeads(const Argument& argument) {
  argument.CheckOnDevice().CheckFloating();
  argument.CheckRank(3, "[tokens, heads, head_size]");
  argument.CheckLastDimensionContiguous();
  AttentionHeads heads;
  heads.tokens = argument.GetLeadingRows(1, argument.shape()[2]);
  heads.heads = argument.shape()[1];
  heads.head_stride = argument.strides()[1];
  return heads;
}

}  // namespace vllm
