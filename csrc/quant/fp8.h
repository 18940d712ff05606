// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// Scales of a matrix cut into groups of group_rows x group_columns elements; group (i, j) has
// data[i * row_stride + j * column_stride].
struct ScaleGrid {
  const float* data = nullptr;
  int64_t group_rows = 1;
  int64_t group_columns = 1;
  int64_t row_stride = 0;
  int64_t column_stride = 0;
};

// Quantisation to eight-bit floating-point numbers: out = input / scale, rounded to nearest even,
// saturated at the largest finite number; NaN stays NaN. `type` is E4M3 or E5M2; rows of out hold
// its codes. Arithmetic is in float32.

// With given scales. The reciprocal of the scale is multiplied in, as upstream's kernel does: a
// quotient may be a unit in the last place of float32 off.
void StaticFp8Quant(const Rows& out, QType type, const Rows& input, const ScaleGrid& scales);

// With one scale for everything, *scale = max |input| / the largest finite number, NaN left out; by
// its reciprocal again. Zeros give the scale 0 and zeros.
void DynamicFp8Quant(const Rows& out, QType type, const Rows& input, float* scale);

// With a scale for each row, max(min(max |row|, *bound) / largest, 1 / (512 * largest)) with
// `largest` the largest finite number; NaN left out; bound may be null, and a bound of NaN bounds
// nothing. The quotient is correctly rounded.
void DynamicPerTokenFp8Quant(const Rows& out, QType type, const Rows& input, float* scales,
                             const float* bound);

}  // namespace vllm
