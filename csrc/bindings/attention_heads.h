// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/heads.h"
#include "bindings/arguments.h"

namespace vllm {

// [tokens, heads, head_size], elements side by side.
inline AttentionHeads CheckedHeads(const Argument& argument) {
  argument.OnDevice().Floating();
  if (argument.shape().size() != 3) argument.Fail("has shape " + ShapeText(argument.shape()), "[tokens, heads, head_size]");
  argument.LastDimensionContiguous();
  AttentionHeads heads;
  heads.tokens = argument.LeadingRows(1, argument.shape()[2]);
  heads.heads = argument.shape()[1];
  heads.head_stride = argument.strides()[1];
  return heads;
}

}  // namespace vllm
