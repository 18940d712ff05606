// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "hwy/aligned_allocator.h"

#include "core/rows.h"
#include "gemm/words.h"

namespace vllm {

// A matrix B of int8, packed for products A * B: panels of 16 columns, padded with zeros. In a
// panel, the four elements of each column in four consecutive rows of B are adjacent. Four products
// are added in one step, so four elements are read at once. With MultipliesWords(), these are the
// panels of gemm/words.h, and the depth is padded with zeros to whole tiles, otherwise to whole
// groups.
struct Int8Panels {
  static constexpr int64_t kPanel = 16;
  static constexpr int64_t kGroup = 4;
  // The sum of this many products of int8 fits into int32.
  static constexpr int64_t kMaxDepth = 131071;

  hwy::AlignedFreeUniquePtr<int8_t[]> data;
  std::vector<int32_t> sums;  // of each column, padded with zeros
  int64_t depth = 0;
  int64_t columns = 0;
  bool words = false;

  int64_t Count() const { return (columns + kPanel - 1) / kPanel; }
  int64_t Groups() const {
    const int64_t step = words ? kGroup * static_cast<int64_t>(kTileWords) : kGroup;
    return (depth + step - 1) / step * step / kGroup;
  }
};

// Element (k, n) of B is at from[k * row_stride + n * column_stride].
Int8Panels PackInt8(const int8_t* from, int64_t row_stride, int64_t column_stride, int64_t depth,
                    int64_t columns);

// Converts the integers of A and B to numbers: (a - zero) * a_scale and b * b_scale. A step of 0
// means one value for all.
struct Int8Scales {
  const float* a = nullptr;  // of row m: a[m * a_step]
  int64_t a_step = 0;
  const float* b = nullptr;  // of column n: b[n * b_step]
  int64_t b_step = 0;
  const int32_t* zero = nullptr;  // of row m: zero[m * zero_step]; null for zeros
  int64_t zero_step = 0;
  const float* bias = nullptr;  // of column n: bias[n]; null for zeros
};

// out[m, n] = sum over k of (a[m, k] - zero) * b[k, n], times a_scale * b_scale, plus bias. The sum
// is exact; all further arithmetic is in float32. Rows of A are `a_stride` elements apart.
void Int8MatMul(const Rows& out, const int8_t* a, int64_t a_stride, const Int8Panels& b,
                const Int8Scales& scales);

}  // namespace vllm
