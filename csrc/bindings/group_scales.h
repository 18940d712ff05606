// SPDX-License-Identifier: Apache-2.0
// Checks for ops whose scales belong to groups of adjacent elements.
#pragma once

#include <string>
#include <vector>

#include "bindings/quantized.h"
#include "quant/group.h"

namespace vllm {

// Returns how many groups of `size` elements a row of input has.
inline int64_t CheckGroups(const Argument& input, int64_t size) {
  const int64_t columns = input.shape().back();
  if (size < 1 || columns % size != 0) {
    input.Fail(
        "has shape " + FormatShape(input.shape()) + " and group_size is " + std::to_string(size),
        "a group_size that divides the last dimension");
  }
  return columns / size;
}

// Checks scales with the shape of input, but with groups in the last dimension; or with two
// dimensions, of which the first contains all tokens.
inline GroupScales CheckGroupScales(const Argument& scales, const Argument& input, int64_t tokens,
                                    int64_t groups) {
  scales.CheckOnDevice().CheckDType(torch::headeronly::ScalarType::Float).CheckWritable();
  std::vector<int64_t> shape = input.shape().vec();
  shape.back() = groups;
  if (scales.shape() != std::vector<int64_t>{tokens, groups})
    scales.CheckShape(shape, "the shape of input with a scale for each group");
  GroupScales result;
  result.rows = scales.GetLeadingRows(scales.shape().size() - 1, 1);
  result.column_stride = scales.strides().back();
  return result;
}

}  // namespace vllm
