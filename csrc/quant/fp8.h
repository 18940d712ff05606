// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// The scales of a matrix that is divided into groups of group_rows x group_columns elements. Group
// (i, j) has data[i * row_stride + j * column_stride].
struct ScaleGrid {
  const float* data = nullptr;
  int64_t group_rows = 1;
  int64_t group_columns = 1;
  int64_t row_stride = 0;
  int64_t column_stride = 0;
};

// Quantisation to eight-bit floating-point numbers: out = input / scale, rounded to nearest, ties
// to even, saturated at the largest finite number. NaN stays NaN. `type` is E4M3 or E5M2; rows of
// `out` hold its codes. Arithmetic is in float32. Where a scale is found, "largest" is the largest
// finite number, or 224 for float8_e4m3fnuz (core/gpu/types.h says why).

// Quantises with given scales. Multiplies by the reciprocal of the scale, as upstream's kernel
// does, so a quotient may be off by a unit in the last place of float32.
void QuantizeFp8Static(const Rows& out, QType type, const Rows& input, const ScaleGrid& scales);

// Quantises with one scale for all elements, *scale = max |input| / largest, ignoring NaN. Also
// multiplies by its reciprocal. An input of zeros gives the scale 0 and zeros.
void QuantizeFp8Dynamic(const Rows& out, QType type, const Rows& input, float* scale);

// Quantises with a scale for each row, max(min(max |row|, *bound) / largest, 1 / (512 * largest)).
// NaN is ignored. `bound` may be null, and a bound of NaN has no effect. The quotient is correctly
// rounded.
void QuantizeFp8PerToken(const Rows& out, QType type, const Rows& input, float* scales,
                         const float* bound);

}  // namespace vllm
