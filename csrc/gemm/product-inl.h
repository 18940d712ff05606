// SPDX-License-Identifier: Apache-2.0
// The product of rows and a packed matrix (gemm/panels.h) in float32. Two ops use it: the matrix
// product and the experts of a mixture. Compiled once for each target. For the order of the loops
// see Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
#if defined(VLLM_GEMM_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_GEMM_PRODUCT_INL_H_
#undef VLLM_GEMM_PRODUCT_INL_H_
#else
#define VLLM_GEMM_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "gemm/blocks.h"
#include "gemm/panel_memory.h"
#include "gemm/panels.h"
#include "gemm/word_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// The number of rows of A whose sums are in registers at once. With two vectors of columns there
// are 12 sums, which leaves 4 of AVX2's 16 registers for the operands and covers the latency of
// additions.
constexpr size_t kTileRows = static_cast<size_t>(kProductTileRows);
// The depth of the part of A that is read for many columns, and the columns of the sums that are
// kept meanwhile: 200 KiB each. The depth is also the part of a panel that is read at a time, long
// enough for a CPU to prefetch.
constexpr size_t kBlockDepth = 512;
constexpr size_t kBlockColumns = 512;
// Padding after each row of A, so that the rows of a tile do not share cache sets.
constexpr size_t kRowPad = 16;

// The beginnings of two vectors of columns of B. Rows of B are `stride` elements apart. `width0`
// and `width1` are the numbers of columns that exist.
template <typename T>
struct ColumnPair {
  const T* b0;
  const T* b1;
  size_t stride;
  size_t width0;
  size_t width1;
};

template <bool kTail, typename T>
HWY_INLINE VF32 LoadB(const T* HWY_RESTRICT p, size_t width) {
  if constexpr (kTail) return LoadTail(p, width);
  return Load(p);
}

// c[r * c_stride + n] += or = sum over k < depth of a[r * a_stride + k] * b[k, n], for kRows rows
// and two vectors of columns. It uses variables instead of arrays, because vectors of a length that
// is unknown at compile time cannot be in arrays. kRows is at most kTileRows.
template <bool kTail, size_t kRows, typename T>
HWY_INLINE void MultiplyTile(const float* HWY_RESTRICT a, size_t a_stride, const ColumnPair<T>& b,
                             size_t depth, float* HWY_RESTRICT c, size_t c_stride, bool add) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF32 zero = hn::Zero(d);
  VF32 c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero;
  VF32 c30 = zero, c31 = zero, c40 = zero, c41 = zero, c50 = zero, c51 = zero;
  const T* HWY_RESTRICT b0 = b.b0;
  const T* HWY_RESTRICT b1 = b.b1;
  for (size_t k = 0; k < depth; ++k, b0 += b.stride, b1 += b.stride) {
    const VF32 v0 = LoadB<kTail>(b0, b.width0), v1 = LoadB<kTail>(b1, b.width1);
    const auto row = [&](size_t r, VF32& s0, VF32& s1) HWY_ATTR {
      const VF32 x = hn::Set(d, a[r * a_stride + k]);
      s0 = hn::MulAdd(x, v0, s0);
      s1 = hn::MulAdd(x, v1, s1);
    };
    row(0, c00, c01);
    if constexpr (kRows > 1) row(1, c10, c11);
    if constexpr (kRows > 2) row(2, c20, c21);
    if constexpr (kRows > 3) row(3, c30, c31);
    if constexpr (kRows > 4) row(4, c40, c41);
    if constexpr (kRows > 5) row(5, c50, c51);
  }
  const auto store = [&](size_t r, VF32 s0, VF32 s1) HWY_ATTR {
    float* to = c + r * c_stride;
    if (add) {
      s0 = hn::Add(s0, hn::LoadU(d, to));
      s1 = hn::Add(s1, hn::LoadU(d, to + lanes));
    }
    hn::StoreU(s0, d, to);
    hn::StoreU(s1, d, to + lanes);
  };
  store(0, c00, c01);
  if constexpr (kRows > 1) store(1, c10, c11);
  if constexpr (kRows > 2) store(2, c20, c21);
  if constexpr (kRows > 3) store(3, c30, c31);
  if constexpr (kRows > 4) store(4, c40, c41);
  if constexpr (kRows > 5) store(5, c50, c51);
}

// The same for whole panels, vectors of which a panel has two, and few rows, whose computation
// takes less time than a memory access. A CPU prefetches several streams at once, and each one adds
// bandwidth: one row uses four panels, two or three rows use two. `panel` is the number of elements
// from one panel to the next.
template <size_t kRows, typename T>
HWY_INLINE void MultiplyWideTile(const float* HWY_RESTRICT a, size_t a_stride,
                                 const T* HWY_RESTRICT b, size_t panel, size_t depth,
                                 float* HWY_RESTRICT c, size_t c_stride, bool add) {
  constexpr size_t kPanel = static_cast<size_t>(Panels::kPanel);
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF32 zero = hn::Zero(d);
  VF32 c00 = zero, c01 = zero, c02 = zero, c03 = zero, c10 = zero, c11 = zero, c12 = zero,
       c13 = zero;
  VF32 c20 = zero, c21 = zero, c22 = zero, c23 = zero;
  for (size_t k = 0; k < depth; ++k, b += kPanel) {
    const auto row = [&](size_t r, const T* at, VF32& s0, VF32& s1, VF32& s2, VF32& s3) HWY_ATTR {
      const VF32 x = hn::Set(d, a[r * a_stride + k]);
      s0 = hn::MulAdd(x, Load(at), s0);
      s1 = hn::MulAdd(x, Load(at + lanes), s1);
      s2 = hn::MulAdd(x, Load(at + panel), s2);
      s3 = hn::MulAdd(x, Load(at + panel + lanes), s3);
    };
    row(0, b, c00, c01, c02, c03);
    if constexpr (kRows == 1) row(0, b + 2 * panel, c10, c11, c12, c13);
    if constexpr (kRows > 1) row(1, b, c10, c11, c12, c13);
    if constexpr (kRows > 2) row(2, b, c20, c21, c22, c23);
  }
  const auto store = [&](float* to, VF32 sum) HWY_ATTR {
    if (add) sum = hn::Add(sum, hn::LoadU(d, to));
    hn::StoreU(sum, d, to);
  };
  const auto store_row = [&](float* to, VF32 s0, VF32 s1, VF32 s2, VF32 s3) HWY_ATTR {
    store(to, s0);
    store(to + lanes, s1);
    store(to + kPanel, s2);
    store(to + kPanel + lanes, s3);
  };
  store_row(c, c00, c01, c02, c03);
  if constexpr (kRows == 1) store_row(c + 2 * kPanel, c10, c11, c12, c13);
  if constexpr (kRows > 1) store_row(c + c_stride, c10, c11, c12, c13);
  if constexpr (kRows > 2) store_row(c + 2 * c_stride, c20, c21, c22, c23);
}

template <bool kTail, typename T>
HWY_NOINLINE void MultiplyTiles(const float* a, size_t a_stride, size_t rows,
                                const ColumnPair<T>& b, size_t depth, float* c, size_t c_stride,
                                bool add) {
  for (; rows >= kTileRows;
       rows -= kTileRows, a += kTileRows * a_stride, c += kTileRows * c_stride) {
    MultiplyTile<kTail, kTileRows>(a, a_stride, b, depth, c, c_stride, add);
  }
  switch (rows) {
    case 1:
      return MultiplyTile<kTail, 1>(a, a_stride, b, depth, c, c_stride, add);
    case 2:
      return MultiplyTile<kTail, 2>(a, a_stride, b, depth, c, c_stride, add);
    case 3:
      return MultiplyTile<kTail, 3>(a, a_stride, b, depth, c, c_stride, add);
    case 4:
      return MultiplyTile<kTail, 4>(a, a_stride, b, depth, c, c_stride, add);
    case 5:
      return MultiplyTile<kTail, 5>(a, a_stride, b, depth, c, c_stride, add);
    default:
      return;
  }
}

// c = or += a * B[from .. from + depth, first .. last), where `first` and `last` are boundaries of
// panels or the last column.
template <typename T>
HWY_INLINE void MultiplyColumns(const float* a, size_t a_stride, size_t rows, const Panels& b,
                                size_t from, size_t depth, size_t first, size_t last, float* c,
                                size_t c_stride, bool add) {
  constexpr size_t kPanel = static_cast<size_t>(Panels::kPanel);
  const size_t lanes = hn::Lanes(F32());
  HWY_DASSERT(lanes <= kPanel);
  size_t column = first;
  if (rows <= 3 && 2 * lanes == kPanel) {
    const size_t panel = kPanel * static_cast<size_t>(b.depth);
    const size_t step = rows == 1 ? 4 * kPanel : 2 * kPanel;
    for (; column + step <= last; column += step) {
      const T* at =
          static_cast<const T*>(b.data) + column * static_cast<size_t>(b.depth) + from * kPanel;
      float* to = c + (column - first);
      if (rows == 1) {
        MultiplyWideTile<1>(a, a_stride, at, panel, depth, to, c_stride, add);
      } else if (rows == 2) {
        MultiplyWideTile<2>(a, a_stride, at, panel, depth, to, c_stride, add);
      } else {
        MultiplyWideTile<3>(a, a_stride, at, panel, depth, to, c_stride, add);
      }
    }
  }
  while (column < last) {
    const size_t inside = column % kPanel;
    const size_t start = column - inside;
    const size_t width = HWY_MIN(kPanel, static_cast<size_t>(b.columns) - start);
    const T* panel = static_cast<const T*>(b.data) + start * static_cast<size_t>(b.depth) +
                     from * width + inside;
    ColumnPair<T> pair{panel, panel, width, HWY_MIN(lanes, width - inside), 0};
    bool whole = false;
    if (width - inside > lanes) {
      pair.b1 = panel + lanes;
      pair.width1 = HWY_MIN(lanes, width - inside - lanes);
      whole = pair.width1 == lanes;
    }
    float* to = c + (column - first);
    if (whole) {
      MultiplyTiles<false>(a, a_stride, rows, pair, depth, to, c_stride, add);
    } else {
      MultiplyTiles<true>(a, a_stride, rows, pair, depth, to, c_stride, add);
    }
    column += 2 * lanes;
    // A narrow last panel may end before the step does.
    if (inside + 2 * lanes > width && width < kPanel) column = last;
  }
}

// Returns v, elements of A, rounded to T if that is bfloat16: the instructions for products of
// bfloat16 take nothing else, and all targets compute the same.
template <typename A, typename T>
HWY_INLINE VF32 RoundIf(VF32 v) {
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>() && !hwy::IsSame<A, T>()) {
    return RoundTo<T>(v);
  } else {
    return v;
  }
}

// Loads elements [0, n) as float32; see RoundIf.
template <typename A, typename T>
HWY_INLINE void ConvertToFloat(const A* HWY_RESTRICT from, float* HWY_RESTRICT to, size_t n) {
  const size_t lanes = hn::Lanes(F32());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(RoundIf<A, T>(Load(from + i)), F32(), to + i);
  if (i < n) hn::StoreN(RoundIf<A, T>(LoadTail(from + i, n - i)), F32(), to + i, n - i);
}

// to[i] = from[i] + bias[i]; bias may be null.
template <typename T, typename Out>
HWY_INLINE void AddBias(const float* HWY_RESTRICT from, const T* HWY_RESTRICT bias,
                        Out* HWY_RESTRICT to, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    VF32 v0 = hn::LoadU(d, from + i), v1 = hn::LoadU(d, from + i + lanes);
    if (bias != nullptr) {
      v0 = hn::Add(v0, Load(bias + i));
      v1 = hn::Add(v1, Load(bias + i + lanes));
    }
    StoreTwo(v0, v1, to + i);
  }
  for (; i < n; i += lanes) {
    const size_t part = HWY_MIN(lanes, n - i);
    VF32 v = hn::LoadN(d, from + i, part);
    if (bias != nullptr) v = hn::Add(v, LoadTail(bias + i, part));
    StoreTail(v, to + i, part);
  }
}

#if VLLM_PANEL_TILES

// The products of float32 and elements of B that are converted to it; see gemm/panel_tile-inl.h.
template <typename T>
struct Floats {
  using Word = float;
  using Packed = T;
  using Sum = float;
  using Sums = VF32;
  static HWY_INLINE VF32 Load(const T* p) { return vllm::HWY_NAMESPACE::Load(p); }
  static HWY_INLINE VF32 Broadcast(const float* p) { return hn::Set(F32(), *p); }
  static HWY_INLINE VF32 Add(VF32 a, VF32 b, VF32 sum) { return hn::MulAdd(a, b, sum); }
};

#endif

// Returns the rows of a block of a product of `rows` rows and B.
HWY_INLINE int64_t GetPanelBlockRows(int64_t rows, [[maybe_unused]] const Panels& b) {
#if VLLM_WORDS
  if (b.words) return GetWordBlockRows(rows, static_cast<int64_t>(b.GetWords().words));
#endif
#if VLLM_PANEL_TILES
  return GetBlockRows(rows, GetVectorBlocks(b.depth, kTilePanels).rows, kVectorRows);
#else
  return GetProductBlockRows(rows);
#endif
}

// Multiplies `rows` rows, row i at row(i), by columns [first, last) of B. Passes results to
// finish(row, count, column, columns, c, c_stride): `count` rows from `row` on and `columns`
// columns from `column` on, in float32.
template <typename A, typename T, typename Row, typename Finish>
HWY_INLINE void MultiplyByPanels(size_t rows, const Row& row, const Panels& b, size_t first,
                                 size_t last, PanelMemory& memory, const Finish& finish) {
  const size_t depth = static_cast<size_t>(b.depth);
#if VLLM_WORDS
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    if (b.words) {
      MultiplyWords<BFloat16Words>(
          rows,
          [&](size_t i, size_t from, size_t words, uint32_t* to)
              HWY_ATTR { FillBFloat16Words(row(i), depth, from, words, to); },
          b.GetWords(), first, last, UsesTiles(static_cast<int64_t>(rows)), memory, finish);
      return;
    }
  }
#endif
#if VLLM_PANEL_TILES
  const size_t whole =
      HWY_MIN(last, static_cast<size_t>(b.columns) / kPanelColumns * kPanelColumns);
  // See MultiplyWideTile.
  const bool wide = kPanelVectors == 2 && rows <= 3;
  if (depth != 0 && first < whole && !wide) {
    MultiplyPanels<Floats<T>>(
        rows, [&](size_t i, float* to) HWY_ATTR { ConvertToFloat<A, T>(row(i), to, depth); },
        static_cast<const T*>(b.data), depth, first, whole, memory, finish);
    first = whole;
  }
#endif
  // Two vectors are stored at a time; the second one of the last two may be outside the panel.
  constexpr size_t kCStride = kBlockColumns + static_cast<size_t>(Panels::kPanel);
  const size_t a_stride = depth + kRowPad;
  const int64_t fitting =
      std::clamp(kBlockWords / static_cast<int64_t>(a_stride), kProductTileRows, kProductBlockRows);
  const size_t most =
      static_cast<size_t>(GetBlockRows(static_cast<int64_t>(rows), fitting, kProductTileRows));
  // For a single tile of rows, only A is read twice.
  const size_t block_depth = rows <= kTileRows ? depth : kBlockDepth;
  for (size_t i = 0; first < last && i < rows; i += most) {
    const size_t count = HWY_MIN(most, rows - i);
    auto* a = reinterpret_cast<float*>(memory.GetA(count * a_stride));
    auto* c = reinterpret_cast<float*>(memory.GetC(count * kCStride));
    for (size_t r = 0; r < count; ++r) ConvertToFloat<A, T>(row(i + r), a + r * a_stride, depth);
    if (depth == 0) std::fill(c, c + count * kCStride, 0.0f);
    for (size_t column = first; column < last; column += kBlockColumns) {
      const size_t end = HWY_MIN(last, column + kBlockColumns);
      for (size_t k = 0; k < depth; k += block_depth) {
        MultiplyColumns<T>(a + k, a_stride, count, b, k, HWY_MIN(block_depth, depth - k), column,
                           end, c, kCStride, k != 0);
      }
      finish(i, count, column, end - column, c, kCStride);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_GEMM_PRODUCT_INL_H_
