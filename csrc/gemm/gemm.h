// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"
#include "gemm/panels.h"

namespace vllm {

// out[m, n] = sum over k of a[m, k] * b[k, n], plus bias[n], in float32 and rounded once. `a`, `b`
// and `out` have the same dtype. `bias` has `columns` adjacent elements or is null.
void MatMul(const Rows& out, const Rows& a, const Panels& b, const float* bias);

}  // namespace vllm
