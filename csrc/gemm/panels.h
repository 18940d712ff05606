// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "gemm/words.h"

namespace vllm {

// A matrix B of `depth` rows and `columns` columns, packed for products A * B: panels of kPanel
// columns, in one of two layouts.
//
// Rows: row follows row, and the last panel has the remaining columns. A panel is therefore read
// sequentially, regardless of the length of vectors, and the packed matrix has as many elements as
// B.
//
// Words: see gemm/words.h. It needs bfloat16 and MultipliesWords(). Depth and columns are padded.
struct Panels {
  static constexpr int64_t kPanel = 16;

  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t depth = 0;
  int64_t columns = 0;
  bool words = false;  // the layout

  int64_t Count() const { return (columns + kPanel - 1) / kPanel; }
  // The number of elements with the padding of the layout.
  int64_t Elements() const;
  // The number of elements in words, which is enough for both layouts.
  int64_t PaddedElements() const;
  WordPanels GetWords() const;
};

// Returns whether the best instruction set multiplies B in words.
bool PrefersWords(DType dtype);

// Packs B into `packed`, which has room for panels.Elements() elements, in the layout that `panels`
// says, and for its dtype and size. Element (k, n) of B is at from[k * row_stride + n *
// column_stride].
void PackPanels(const Panels& panels, const void* from, int64_t row_stride, int64_t column_stride,
                void* packed);

}  // namespace vllm
