// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// Quantisation to int8, rounded to nearest even, saturated. Symmetric: out = round(input / scale).
// Asymmetric, with a zero point azp: out = round(input / scale) + azp. NaN gives what zero gives.
// Arithmetic is in float32.

// With the numbers at `scale` and `azp`; azp may be null. The symmetric quotient is correctly
// rounded; the asymmetric one is a product with the reciprocal, as in upstream's kernel.
void StaticInt8Quant(const Rows& out, const Rows& input, const float* scale, const int32_t* azp);

// With numbers for each row, NaN left out of the extremes. Without azps, scale = max |row| / 127,
// and 127 / max |row| is multiplied in; zeros give the scale 0 and zeros. With azps, scale = (max -
// min) / 255 and azp = round(-128 - min / scale); where all elements of a row are the same number,
// zero counts as one of them, since a range of nothing has no scale.
void DynamicInt8Quant(const Rows& out, const Rows& input, float* scales, int32_t* azps);

}  // namespace vllm
