// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"

namespace vllm {

// Root mean square normalisation (Zhang and Sennrich, arXiv:1910.07467), in float32 and rounded
// once:
//   out[r, i] = input[r, i] / sqrt(mean_j(input[r, j]^2) + epsilon) * weight[i]
// `weight` has `width` elements of the same dtype; null means ones. `out` may be `input`.
void NormalizeRms(const Rows& out, const Rows& input, const void* weight, float epsilon);

// residual += input, then input = NormalizeRms(residual), both in place.
//
// The sum is rounded to the dtype before it is used, so the result is exactly NormalizeRms of the
// new residual. vLLM's CUDA kernel does the same. Its CPU kernel takes the mean square of the sum
// before rounding and normalises the sum after rounding; the two differ by less than the rounding
// of the result.
void AddAndNormalizeRms(const Rows& input, const Rows& residual, const void* weight, float epsilon);

}  // namespace vllm
