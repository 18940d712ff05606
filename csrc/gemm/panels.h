// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm {

// A matrix B of `depth` rows and `columns` columns, packed for products A * B: panels of kPanel
// columns, the last one as narrow as what is left; in a panel one row after the other. So a panel
// is read from the first to the last byte, whatever the length of the vectors, and the packed
// matrix has as many elements as the matrix.
struct Panels {
  static constexpr int64_t kPanel = 16;

  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t depth = 0;
  int64_t columns = 0;

  int64_t Count() const { return (columns + kPanel - 1) / kPanel; }
};

// Packs B into `packed`, depth * columns elements of `dtype`. Element (k, n) of B is at from[k *
// row_stride + n * column_stride].
void PackPanels(DType dtype, const void* from, int64_t row_stride, int64_t column_stride,
                int64_t depth, int64_t columns, void* packed);

}  // namespace vllm
