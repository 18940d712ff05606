// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"

namespace vllm {

// NormalizeRms and AddAndNormalizeRms of norm/norm.h with a quantised result. The normalised number
// stays in float32 until it is quantised, so it is rounded once. If `residual` is not null,
// residual += input, rounded to the dtype, is normalised instead of the input. `weight` has `width`
// elements of the dtype of input.

// Quantises with the scale at `scale` to E4M3 or E5M2. Multiplies by the reciprocal of the scale.
void NormalizeAndQuantizeStatic(const Rows& out, QType type, const Rows& input,
                                const Rows* residual, const void* weight, const float* scale,
                                float epsilon);

// Quantises with a scale for each row, max(min(max |normalised row|, *bound) / largest, least),
// which ignores NaN. `bound` may be null, and a bound of NaN has no effect. NaN stays NaN, and is 0
// in int8; NaN in the input makes its whole row NaN. For int8, `largest` is 127, `least` is 2^-23,
// and the row is multiplied by the reciprocal of the scale. For E4M3 and E5M2, `largest` is that of
// quant/fp8.h, `least` is 1 / (512 * largest), and the quotient is correctly rounded.
void NormalizeAndQuantizeDynamic(const Rows& out, QType type, const Rows& input,
                                 const Rows* residual, const void* weight, float* scales,
                                 const float* bound, float epsilon);

}  // namespace vllm
