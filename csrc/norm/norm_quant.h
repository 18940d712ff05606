// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"

namespace vllm {

// RmsNorm and FusedAddRmsNorm of norm/norm.h with a quantised result: the normalised number stays
// in float32 until it is quantised, so it is rounded once. `residual` may be null; otherwise
// residual += input, rounded to the dtype, is what is normalised. weight holds `width` elements of
// the dtype of input.

// With the scale at `scale`, to E4M3 or E5M2; the reciprocal of the scale is multiplied in.
void RmsNormStaticFp8Quant(const Rows& out, QType type, const Rows& input, const Rows* residual,
                           const void* weight, const float* scale, float epsilon);

// With a scale for each row, max(min(max |normalised row|, *bound) / largest, least), NaN left out;
// bound may be null, and a bound of NaN bounds nothing. NaN stays NaN, and is 0 in int8; NaN in the
// input makes its whole row NaN. To int8 largest is 127, least is 2^-23, and the reciprocal of the
// scale is multiplied in; to E4M3 and E5M2 largest is the largest finite number, least is 1 / (512
// * largest), and the quotient is correctly rounded.
void RmsNormDynamicQuant(const Rows& out, QType type, const Rows& input, const Rows* residual,
                         const void* weight, float* scales, const float* bound, float epsilon);

}  // namespace vllm
