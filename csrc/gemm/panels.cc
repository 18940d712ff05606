// SPDX-License-Identifier: Apache-2.0
#include "gemm/panels.h"

#include <algorithm>

#include "core/cpu_parallel.h"

namespace vllm {
namespace {

template <typename T>
void Pack(const T* from, int64_t row_stride, int64_t column_stride, int64_t depth, int64_t columns,
          T* packed) {
  constexpr int64_t kPanel = Panels::kPanel;
  ParallelFor((columns + kPanel - 1) / kPanel, depth * kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * kPanel;
      const int64_t width = std::min(kPanel, columns - first);
      const T* source = from + first * column_stride;
      T* to = packed + first * depth;
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t n = 0; n < width; ++n)
          to[k * width + n] = source[k * row_stride + n * column_stride];
      }
    }
  });
}

}  // namespace

void PackPanels(DType dtype, const void* from, int64_t row_stride, int64_t column_stride,
                int64_t depth, int64_t columns, void* packed) {
  if (dtype == DType::kFloat32) {
    Pack(static_cast<const uint32_t*>(from), row_stride, column_stride, depth, columns,
         static_cast<uint32_t*>(packed));
  } else {
    Pack(static_cast<const uint16_t*>(from), row_stride, column_stride, depth, columns,
         static_cast<uint16_t*>(packed));
  }
}

}  // namespace vllm
