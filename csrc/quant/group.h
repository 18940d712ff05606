// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// How a group of neighbouring elements of a row is quantised, in float32: scale = max(max |group|,
// epsilon) / high, NaN left out; out = input / scale within [low, high], rounded to nearest even to
// eight-bit floating-point numbers, towards zero to int8. NaN stays NaN, and is 0 in int8.
struct GroupQuantization {
  int64_t size = 0;
  float epsilon = 0.0f;
  float low = 0.0f;
  float high = 0.0f;
  bool power_of_two =
      false;  // the scale is the least power of two that is no less, and no less than 1e-10
};

// A scale for each row and group, row r and group g at column_stride * g from the row.
struct GroupScales {
  Rows rows;
  int64_t column_stride = 1;
};

// input.width is a multiple of the group's size.
void GroupQuant(const Rows& out, QType type, const Rows& input, const GroupScales& scales,
                const GroupQuantization& how);

}  // namespace vllm
