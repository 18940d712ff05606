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

#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "gemm/blocks.h"
#include "gemm/panels.h"
#include "gemm/word_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// The number of rows of A whose sums are in registers at once. With two vectors of columns there
// are 12 sums, which leaves 4 of AVX2's 16 registers for the operands and covers the latency of
// additions. AVX-512 has 32 registers: with 24 sums, fewer loads are made for each of them.
constexpr size_t kTileRows = static_cast<size_t>(kProductTileRows);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
constexpr size_t kTallRows = 2 * kTileRows;
#else
constexpr size_t kTallRows = kTileRows;
#endif
// The rows and depth of the part of A that is converted to float32 and read for many columns, and
// the columns of the sums that are kept meanwhile: 200 KiB each. The depth is also the part of a
// panel that is read at a time, long enough for a CPU to prefetch.
constexpr size_t kBlockRows = static_cast<size_t>(kProductBlockRows);
constexpr size_t kBlockDepth = 512;
constexpr size_t kBlockColumns = 512;
// For a single tile of rows, only A is read twice; the depth limits only the memory for A.
constexpr size_t kTileDepth = 4096 - 16;
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
// is unknown at compile time cannot be in arrays. kRows is at most kTileRows, or kTallRows.
template <bool kTail, size_t kRows, typename T>
HWY_INLINE void MultiplyTile(const float* HWY_RESTRICT a, size_t a_stride, const ColumnPair<T>& b,
                             size_t depth, float* HWY_RESTRICT c, size_t c_stride, bool add) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF32 zero = hn::Zero(d);
  VF32 c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero;
  VF32 c30 = zero, c31 = zero, c40 = zero, c41 = zero, c50 = zero, c51 = zero;
  [[maybe_unused]] VF32 c60 = zero, c61 = zero, c70 = zero, c71 = zero, c80 = zero, c81 = zero;
  [[maybe_unused]] VF32 c90 = zero, c91 = zero, cA0 = zero, cA1 = zero, cB0 = zero, cB1 = zero;
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
    if constexpr (kRows > 6) {
      row(6, c60, c61);
      row(7, c70, c71);
      row(8, c80, c81);
      row(9, c90, c91);
      row(10, cA0, cA1);
      row(11, cB0, cB1);
    }
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
  if constexpr (kRows > 6) {
    store(6, c60, c61);
    store(7, c70, c71);
    store(8, c80, c81);
    store(9, c90, c91);
    store(10, cA0, cA1);
    store(11, cB0, cB1);
  }
}

// The same for whole panels and few rows, whose computation takes less time than a memory access. A
// CPU prefetches several streams at once, and each one adds bandwidth: one row uses four panels,
// two or three rows use two. `panel` is the number of elements from one panel to the next. Only for
// vectors of which a panel has one or two.
template <size_t kRows, typename T>
HWY_INLINE void MultiplyWideTile(const float* HWY_RESTRICT a, size_t a_stride,
                                 const T* HWY_RESTRICT b, size_t panel, size_t depth,
                                 float* HWY_RESTRICT c, size_t c_stride, bool add) {
  constexpr size_t kPanel = static_cast<size_t>(Panels::kPanel);
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const bool halves = lanes < kPanel;
  const VF32 zero = hn::Zero(d);
  VF32 c00 = zero, c01 = zero, c02 = zero, c03 = zero, c10 = zero, c11 = zero, c12 = zero,
       c13 = zero;
  VF32 c20 = zero, c21 = zero, c22 = zero, c23 = zero;
  for (size_t k = 0; k < depth; ++k, b += kPanel) {
    const auto row = [&](size_t r, const T* at, VF32& s0, VF32& s1, VF32& s2, VF32& s3) HWY_ATTR {
      const VF32 x = hn::Set(d, a[r * a_stride + k]);
      s0 = hn::MulAdd(x, Load(at), s0);
      if (halves) s1 = hn::MulAdd(x, Load(at + lanes), s1);
      s2 = hn::MulAdd(x, Load(at + panel), s2);
      if (halves) s3 = hn::MulAdd(x, Load(at + panel + lanes), s3);
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
    if (halves) store(to + lanes, s1);
    store(to + kPanel, s2);
    if (halves) store(to + kPanel + lanes, s3);
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
  if constexpr (kTallRows > kTileRows) {
    for (; rows >= kTallRows;
         rows -= kTallRows, a += kTallRows * a_stride, c += kTallRows * c_stride) {
      MultiplyTile<kTail, kTallRows>(a, a_stride, b, depth, c, c_stride, add);
    }
  }
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
  if (rows <= 3 && 2 * lanes >= kPanel) {
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
    size_t step = 2 * lanes;
    bool whole = pair.width0 == lanes;
    if (lanes == kPanel) {
      // The second vector is in the next panel if that is a whole one.
      whole = whole && column + 2 * kPanel <= last;
      if (whole) {
        pair.b1 = panel + kPanel * static_cast<size_t>(b.depth);
        pair.width1 = lanes;
      } else {
        step = kPanel;
      }
    } else if (width - inside > lanes) {
      pair.b1 = panel + lanes;
      pair.width1 = HWY_MIN(lanes, width - inside - lanes);
      whole = whole && pair.width1 == lanes;
    } else {
      whole = false;
    }
    float* to = c + (column - first);
    if (whole) {
      MultiplyTiles<false>(a, a_stride, rows, pair, depth, to, c_stride, add);
    } else {
      MultiplyTiles<true>(a, a_stride, rows, pair, depth, to, c_stride, add);
    }
    column += step;
    // A narrow last panel may end before the step does.
    if (inside + step > width && width < kPanel) column = last;
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

// The memory of one thread for MultiplyByPanels.
class ProductMemory {
 public:
  float* a() { return Get(a_, kAElements); }
  float* c() { return Get(c_, kBlockRows * kCStride); }
#if VLLM_WORDS
  WordMemory words;
#endif

  // Two vectors are stored at a time; the second one of the last two may be outside the panel.
  static constexpr size_t kCStride = kBlockColumns + static_cast<size_t>(Panels::kPanel);

 private:
  static constexpr size_t kAElements = kBlockRows * (kBlockDepth + kRowPad);
  static_assert(kTileRows * (kTileDepth + kRowPad) <= kAElements, "a tile's depth must fit");

  using Memory = hwy::AlignedFreeUniquePtr<float[]>;

  static float* Get(Memory& memory, size_t size) {
    if (memory == nullptr) memory = hwy::AllocateAligned<float>(size);
    return memory.get();
  }

  Memory a_, c_;
};

// Multiplies `rows` rows, row i at row(i), by columns [first, last) of B. Passes results to
// finish(row, count, column, columns, c, c_stride): `count` rows from `row` on and `columns`
// columns from `column` on, in float32 with kCStride elements from row to row.
template <typename A, typename T, typename Row, typename Finish>
HWY_INLINE void MultiplyByPanels(size_t rows, const Row& row, const Panels& b, size_t first,
                                 size_t last, ProductMemory& memory, const Finish& finish) {
  const size_t depth = static_cast<size_t>(b.depth);
#if VLLM_WORDS
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    if (b.words) {
      MultiplyWords<BFloat16Words>(
          rows,
          [&](size_t i, size_t from, size_t words, uint32_t* to)
              HWY_ATTR { FillBFloat16Words(row(i), depth, from, words, to); },
          b.GetWords(), first, last, UsesTiles(static_cast<int64_t>(rows)), memory.words, finish);
      return;
    }
  }
#endif
  const size_t block_depth = rows <= kTileRows ? kTileDepth : kBlockDepth;
  for (size_t i = 0; i < rows; i += kBlockRows) {
    const size_t count = HWY_MIN(kBlockRows, rows - i);
    for (size_t column = first; column < last; column += kBlockColumns) {
      const size_t end = HWY_MIN(last, column + kBlockColumns);
      if (depth == 0) std::fill(memory.c(), memory.c() + count * ProductMemory::kCStride, 0.0f);
      for (size_t k = 0; k < depth; k += block_depth) {
        const size_t part = HWY_MIN(block_depth, depth - k);
        for (size_t r = 0; r < count; ++r)
          ConvertToFloat<A, T>(row(i + r) + k, memory.a() + r * (part + kRowPad), part);
        MultiplyColumns<T>(memory.a(), part + kRowPad, count, b, k, part, column, end, memory.c(),
                           ProductMemory::kCStride, k != 0);
      }
      finish(i, count, column, end - column, memory.c(), ProductMemory::kCStride);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_GEMM_PRODUCT_INL_H_
