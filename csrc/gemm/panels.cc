// SPDX-License-Identifier: Apache-2.0
#include "gemm/panels.h"

#include <algorithm>

#include "core/cpu_dispatch.h"
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

constexpr int64_t kPair = 2;  // elements of bfloat16 in a word
constexpr int64_t kTileDepth = kPair * kTileWords;

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

void PackWords(const uint16_t* from, int64_t row_stride, int64_t column_stride, int64_t depth,
               int64_t columns, uint16_t* packed) {
  constexpr int64_t kPanel = Panels::kPanel;
  const int64_t padded = RoundUp(depth, kTileDepth);
  ParallelFor((columns + kPanel - 1) / kPanel, depth * kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * kPanel;
      const int64_t width = std::min(kPanel, columns - first);
      const uint16_t* source = from + first * column_stride;
      uint16_t* to = packed + first * padded;
      for (int64_t k = 0; k < padded; k += kPair) {
        for (int64_t n = 0; n < kPanel; ++n) {
          for (int64_t i = k; i < k + kPair; ++i)
            *to++ = n < width && i < depth ? source[i * row_stride + n * column_stride] : 0;
        }
      }
    }
  });
}

}  // namespace

bool PrefersWords(DType dtype) { return dtype == DType::kBFloat16 && MultipliesWords(); }

int64_t Panels::Elements() const { return words ? PaddedElements() : depth * columns; }

int64_t Panels::PaddedElements() const { return Count() * kPanel * RoundUp(depth, kTileDepth); }

WordPanels Panels::GetWords() const {
  return {static_cast<const uint32_t*>(data),
          static_cast<size_t>(RoundUp(depth, kTileDepth) / kPair), static_cast<size_t>(columns)};
}

void PackPanels(const Panels& panels, const void* from, int64_t row_stride, int64_t column_stride,
                void* packed) {
  if (panels.words) {
    PackWords(static_cast<const uint16_t*>(from), row_stride, column_stride, panels.depth,
              panels.columns, static_cast<uint16_t*>(packed));
  } else if (panels.dtype == DType::kFloat32) {
    Pack(static_cast<const uint32_t*>(from), row_stride, column_stride, panels.depth,
         panels.columns, static_cast<uint32_t*>(packed));
  } else {
    Pack(static_cast<const uint16_t*>(from), row_stride, column_stride, panels.depth,
         panels.columns, static_cast<uint16_t*>(packed));
  }
}

}  // namespace vllm
