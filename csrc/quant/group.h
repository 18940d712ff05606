// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// The quantisation of a group of adjacent elements of a row, in float32: scale = max(max |group|,
// epsilon) / high, ignoring NaN; out = input / scale within [low, high], rounded to nearest, ties
// to even, for eight-bit floating-point numbers, and towards zero for int8. NaN stays NaN, and is 0
// in int8.
struct GroupQuantization {
  int64_t size = 0;
  float epsilon = 0.0f;
  float low = 0.0f;
  float high = 0.0f;
  bool power_of_two = false;  // round the scale up to a power of two, and to at least 1e-10
};

// A scale for each row and group: group g of row r is column_stride * g elements from the beginning
// of row r.
struct GroupScales {
  Rows rows;
  int64_t column_stride = 1;
};

// input.width is a multiple of the group's size.
void QuantizeRowGroups(const Rows& out, QType type, const Rows& input, const GroupScales& scales,
                       const GroupQuantization& how);

}  // namespace vllm
