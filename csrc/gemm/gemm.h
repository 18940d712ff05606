// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"
#include "gemm/panels.h"

namespace vllm {

// out[m, n] = sum over k of a[m, k] * b[k, n], plus bias[n], in float32 and rounded once. `a`, `b`
// and `out` have the same dtype, and so has `bias`: `columns` elements side by side, or null.
void MatMul(const Rows& out, const Rows& a, const Panels& b, const void* bias);

}  // namespace vllm
