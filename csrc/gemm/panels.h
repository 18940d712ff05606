// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm {

// A matrix B of `depth` rows and `columns` columns, packed for products A * B: panels of kPanel
// columns, in which row follows row; the last panel has the remaining columns. A panel is therefore
// read sequentially, regardless of the length of vectors, and the packed matrix has as many
// elements as B.
struct Panels {
  static constexpr int64_t kPanel = 16;

  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t depth = 0;
  int64_t columns = 0;

  int64_t Count() const { return (columns + kPanel - 1) / kPanel; }
};

// Packs B into `packed`, which has room for depth * columns elements of `dtype`. Element (k, n) of
// B is at from[k * row_stride + n * column_stride].
void PackPanels(DType dtype, const void* from, int64_t row_stride, int64_t column_stride,
                int64_t depth, int64_t columns, void* packed);

}  // namespace vllm
