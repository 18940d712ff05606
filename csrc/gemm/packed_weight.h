// SPDX-License-Identifier: Apache-2.0
// The small weights that upstream's engine packs into a tensor: convert_weight_packed and
// weight_packed_linear. The layout is private to these two.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/rows.h"

namespace vllm {

// A packed weight of N columns and K rows, as a tensor [panels, steps, width]. A panel is 16
// columns; those that do not exist are zero.
//
// bfloat16: a step is two rows, and width is 32: element 2 * c + i is row 2 * step + i of column c.
// That is the order of operands of VDPBF16PS and of the tiles of TDPBF16PS. The number of steps is
// a multiple of 16, the rows of a tile; what does not exist is zero.
//
// float16, float32: a step is a row, and width is 16.
struct PackedWeight {
  static constexpr int64_t kPanel = 16;
  static constexpr int64_t kTileSteps = 16;

  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t panels = 0;
  int64_t steps = 0;

  static constexpr int64_t Width(DType dtype) {
    return dtype == DType::kBFloat16 ? 2 * kPanel : kPanel;
  }
  static constexpr int64_t Panels(int64_t columns) { return (columns + kPanel - 1) / kPanel; }
  // The steps for a depth of K.
  static constexpr int64_t Steps(DType dtype, int64_t depth) {
    return dtype == DType::kBFloat16 ? (depth + 2 * kTileSteps - 1) / (2 * kTileSteps) * kTileSteps
                                     : depth;
  }
  int64_t PanelElements() const { return steps * Width(dtype); }
};

// Packs `columns` columns of `depth` elements into `packed`, whose data `to` is. Element k of
// column n is at n * column_stride + k * row_stride.
void PackWeight(const PackedWeight& packed, const void* from, int64_t column_stride,
                int64_t row_stride, int64_t columns, int64_t depth, void* to);

// out[m, n] = sum over k of a[m, k] * weight[k, n], plus bias[n], in float32 and rounded once. `a`,
// `out` and the weight have one dtype. `bias` is null or has a number for each column. Products of
// bfloat16 take subnormal numbers for zero on CPUs that multiply bfloat16 themselves.
void MultiplyPacked(const Rows& out, const Rows& a, const PackedWeight& weight, const float* bias);

}  // namespace vllm
