// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// Quantisation to int8, rounded to nearest, ties to even, saturated. Symmetric: out = round(input /
// scale). Asymmetric, with a zero point azp: out = round(input / scale) + azp. NaN is treated as
// zero. Arithmetic is in float32.

// Quantises with the numbers at `scale` and `azp`; azp may be null. The symmetric quotient is
// correctly rounded; the asymmetric one is a product with the reciprocal, as in upstream's kernel.
void QuantizeInt8Static(const Rows& out, const Rows& input, const float* scale, const int32_t* azp);

// Quantises with numbers for each row; the extremes ignore NaN. Without azps, scale = max |row| /
// 127, and the row is multiplied by 127 / max |row|; a row of zeros gives the scale 0 and zeros.
// With azps, scale = (max - min) / 255 and azp = round(-128 - min / scale). If all elements of a
// row are equal, zero is included in the range, because an empty range has no scale.
void QuantizeInt8Dynamic(const Rows& out, const Rows& input, float* scales, int32_t* azps);

}  // namespace vllm
