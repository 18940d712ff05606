// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>

#include "gemm/int8.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gemm/int8_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "core/with_type-inl.h"
#include "gemm/blocks.h"
#include "gemm/word_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

using I32 = hn::RebindToSigned<F32>;
using VI32 = hn::Vec<I32>;

constexpr size_t kPanel = static_cast<size_t>(Int8Panels::kPanel);
constexpr size_t kGroup = static_cast<size_t>(Int8Panels::kGroup);
#if !VLLM_WORDS
// Pairs of 16-bit numbers are multiplied: elements 0 and 2 of a group of four, then 1 and 3,
// because shifts extract them from B in this order. No intermediate sum saturates, unlike the
// 16-bit sums of bytes in AVX2.
using Prepared = int16_t;
constexpr size_t kTileRows = 4;
// Preparing A costs as much as some 30 columns, so it is done once for many columns. Two widened
// vectors of columns of B take half of a first-level cache of 32 KiB.
constexpr size_t kBlockRows = static_cast<size_t>(kProductBlockRows);
constexpr size_t kBlockGroups = 128;
constexpr size_t kBlockColumns = 512;
// Two vectors are stored at a time; the second one of the last two may be outside the panel.
constexpr size_t kCStride = kBlockColumns + kPanel;

// Two vectors of packed columns of B, at b0 and b1.
struct Packed {
  const int8_t* HWY_RESTRICT b0;
  const int8_t* HWY_RESTRICT b1;
};

// The same columns as 16-bit numbers. For each half of a group there are those of the first vector,
// then of the second.
struct Widened {
  const int16_t* HWY_RESTRICT b;
};
constexpr size_t kWidened = 4 * hn::MaxLanes(hn::Repartition<int16_t, I32>());
// Fewer rows would use the widened columns too rarely.
constexpr size_t kWidenFrom = 3 * kTileRows;

using VI16 = hn::Vec<hn::Repartition<int16_t, I32> >;

// Loads the halves of a group: elements 0 and 2 of the columns of two vectors, then 1 and 3.
HWY_INLINE void LoadGroup(const Packed& columns, size_t g, VI16& even0, VI16& even1, VI16& odd0,
                          VI16& odd1) {
  const hn::Repartition<int8_t, I32> d8;
  const hn::Repartition<int16_t, I32> d16;
  const auto v0 = hn::BitCast(d16, hn::LoadU(d8, columns.b0 + g * kPanel * kGroup));
  const auto v1 = hn::BitCast(d16, hn::LoadU(d8, columns.b1 + g * kPanel * kGroup));
  even0 = hn::ShiftRight<8>(hn::ShiftLeft<8>(v0));
  even1 = hn::ShiftRight<8>(hn::ShiftLeft<8>(v1));
  odd0 = hn::ShiftRight<8>(v0);
  odd1 = hn::ShiftRight<8>(v1);
}

HWY_NOINLINE void Widen(const Packed& columns, size_t groups, int16_t* HWY_RESTRICT to) {
  const hn::Repartition<int16_t, I32> d;
  const size_t lanes = hn::Lanes(d);
  for (size_t g = 0; g < groups; ++g, to += 4 * lanes) {
    VI16 even0, even1, odd0, odd1;
    LoadGroup(columns, g, even0, even1, odd0, odd1);
    hn::Store(even0, d, to);
    hn::Store(even1, d, to + lanes);
    hn::Store(odd0, d, to + 2 * lanes);
    hn::Store(odd1, d, to + 3 * lanes);
  }
}

// Without this, GCC adds products to each other before it adds them to the sums, and moves the sums
// between registers, which takes a tenth longer.
HWY_INLINE void KeepInRegisters([[maybe_unused]] VI32& s0, [[maybe_unused]] VI32& s1) {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC_ACTUAL
  asm("" : "+x"(s0.raw), "+x"(s1.raw));
#endif
}

// s0 and s1 += the products of half a group of a row of A, at `a`, and the same half of the
// columns.
HWY_INLINE void AddHalf(const Prepared* a, VI16 v0, VI16 v1, VI32& s0, VI32& s1) {
  int32_t word;
  hwy::CopyBytes<4>(a, &word);
  const VI16 x = hn::BitCast(hn::Repartition<int16_t, I32>(), hn::Set(I32(), word));
  s0 = hn::Add(s0, hn::WidenMulPairwiseAdd(I32(), x, v0));
  s1 = hn::Add(s1, hn::WidenMulPairwiseAdd(I32(), x, v1));
  KeepInRegisters(s0, s1);
}

// c = or += the products of kRows rows of A and two vectors of columns over `groups` groups.
template <size_t kRows, class Columns>
HWY_INLINE void MultiplyTile(const Prepared* HWY_RESTRICT a, size_t a_stride,
                             const Columns& columns, size_t groups, int32_t* HWY_RESTRICT c,
                             size_t c_stride, bool add) {
  const I32 d;
  const VI32 zero = hn::Zero(d);
  VI32 c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero,
       c31 = zero;
  const auto add_half = [&](VI16 v0, VI16 v1) HWY_ATTR {
    AddHalf(a, v0, v1, c00, c01);
    if constexpr (kRows > 1) AddHalf(a + a_stride, v0, v1, c10, c11);
    if constexpr (kRows > 2) AddHalf(a + 2 * a_stride, v0, v1, c20, c21);
    if constexpr (kRows > 3) AddHalf(a + 3 * a_stride, v0, v1, c30, c31);
    a += kGroup / 2;
  };
  if constexpr (hwy::IsSame<Columns, Widened>()) {
    // One half of a group in each iteration: with both, the compiler adds the products of the
    // halves first and runs out of registers.
    const hn::Repartition<int16_t, I32> d16;
    const size_t lanes = hn::Lanes(d16);
    const int16_t* HWY_RESTRICT b = columns.b;
    for (size_t half = 0; half < 2 * groups; ++half, b += 2 * lanes)
      add_half(hn::Load(d16, b), hn::Load(d16, b + lanes));
  } else {
    for (size_t g = 0; g < groups; ++g) {
      VI16 even0, even1, odd0, odd1;
      LoadGroup(columns, g, even0, even1, odd0, odd1);
      add_half(even0, even1);
      add_half(odd0, odd1);
    }
  }
  const auto store = [&](size_t r, VI32 s0, VI32 s1) HWY_ATTR {
    int32_t* to = c + r * c_stride;
    if (add) {
      s0 = hn::Add(s0, hn::LoadU(d, to));
      s1 = hn::Add(s1, hn::LoadU(d, to + hn::Lanes(d)));
    }
    hn::StoreU(s0, d, to);
    hn::StoreU(s1, d, to + hn::Lanes(d));
  };
  store(0, c00, c01);
  if constexpr (kRows > 1) store(1, c10, c11);
  if constexpr (kRows > 2) store(2, c20, c21);
  if constexpr (kRows > 3) store(3, c30, c31);
}

template <class Columns>
HWY_NOINLINE void MultiplyTiles(const Prepared* a, size_t a_stride, size_t rows,
                                const Columns& columns, size_t groups, int32_t* c, size_t c_stride,
                                bool add) {
  for (; rows >= kTileRows;
       rows -= kTileRows, a += kTileRows * a_stride, c += kTileRows * c_stride) {
    MultiplyTile<kTileRows>(a, a_stride, columns, groups, c, c_stride, add);
  }
  switch (rows) {
    case 1:
      return MultiplyTile<1>(a, a_stride, columns, groups, c, c_stride, add);
    case 2:
      return MultiplyTile<2>(a, a_stride, columns, groups, c, c_stride, add);
    case 3:
      return MultiplyTile<3>(a, a_stride, columns, groups, c, c_stride, add);
    default:
      return;
  }
}

// Prepares the groups of a row of A as RunInt8Row reads them: `n` elements, then zeros up to a
// whole group.
HWY_INLINE void Prepare(const int8_t* HWY_RESTRICT from, size_t n, Prepared* HWY_RESTRICT to) {
  const hn::Repartition<int16_t, I32> d;
  const size_t lanes = hn::Lanes(d);
  const size_t whole = n / kGroup * kGroup;
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::PromoteTo(d, hn::LoadU(hn::Rebind<int8_t, decltype(d)>(), from + i));
    hn::StoreU(hn::Per4LaneBlockShuffle<3, 1, 2, 0>(v), d, to + i);
  }
  for (; i < whole; i += kGroup) {
    to[i] = from[i];
    to[i + 1] = from[i + 2];
    to[i + 2] = from[i + 1];
    to[i + 3] = from[i + 3];
  }
  if (whole < n) {
    int16_t rest[kGroup] = {};
    for (; i < n; ++i) rest[i - whole] = from[i];
    to[whole] = rest[0];
    to[whole + 1] = rest[2];
    to[whole + 2] = rest[1];
    to[whole + 3] = rest[3];
  }
}

#endif  // !VLLM_WORDS

// Returns sums - zero * column_sums, computed exactly in float64 and rounded to float32.
HWY_INLINE VF32 SubtractZero(VI32 sums, VI32 column_sums, int32_t zero) {
  const hn::Repartition<double, F32> dd;
  const hn::Half<F32> dh;
  const auto z = hn::Set(dd, static_cast<double>(zero));
  const auto low =
      hn::NegMulAdd(z, hn::PromoteLowerTo(dd, column_sums), hn::PromoteLowerTo(dd, sums));
  const auto high =
      hn::NegMulAdd(z, hn::PromoteUpperTo(dd, column_sums), hn::PromoteUpperTo(dd, sums));
  return hn::Combine(F32(), hn::DemoteTo(dh, high), hn::DemoteTo(dh, low));
}

// Writes columns [first, first + n) of row `row` of the result from the sums of products of A, to
// whose elements `shift` was added, and B.
template <typename T>
HWY_INLINE void FinishRow(const int32_t* HWY_RESTRICT c, const Int8Panels& b,
                          const Int8Scales& scales, int32_t shift, int64_t row, size_t first,
                          size_t n, T* HWY_RESTRICT to) {
  const F32 d;
  const I32 di;
  const size_t lanes = hn::Lanes(d);
  const VF32 a_scale = hn::Set(d, scales.a[row * scales.a_step]);
  const int32_t zero = scales.zero == nullptr ? 0 : scales.zero[row * scales.zero_step];
  for (size_t i = 0; i < n; i += lanes) {
    const size_t part = HWY_MIN(lanes, n - i);
    const VI32 column_sums = hn::LoadU(di, b.sums.data() + first + i);
    VI32 sums = hn::LoadU(di, c + i);
    if (shift != 0) sums = hn::Sub(sums, hn::Mul(column_sums, hn::Set(di, shift)));
    const VF32 product = zero == 0 ? hn::ConvertTo(d, sums) : SubtractZero(sums, column_sums, zero);
    const VF32 b_scale =
        scales.b_step == 0 ? hn::Set(d, scales.b[0]) : hn::LoadN(d, scales.b + first + i, part);
    VF32 v = hn::Mul(hn::Mul(product, a_scale), b_scale);
    if (scales.bias != nullptr) v = hn::Add(v, hn::LoadN(d, scales.bias + first + i, part));
    if (part == lanes) {
      Store(v, to + i);
    } else {
      StoreTail(v, to + i, part);
    }
  }
}

#if VLLM_WORDS

// Writes words [from, from + words) of a row of A: groups of four elements, to which 128 is added
// if kShifted is set, and zeros after the end.
template <bool kShifted>
HWY_INLINE void FillInt8Words(const int8_t* HWY_RESTRICT row, size_t depth, size_t from,
                              size_t words, uint32_t* HWY_RESTRICT to) {
  const hn::Repartition<int8_t, F32> d;
  const size_t lanes = kGroup * kTileWords;
  const auto sign = hn::Set(d, static_cast<int8_t>(kShifted ? -128 : 0));
  for (size_t i = 0; i < words; i += kTileWords) {
    const size_t k = (from + i) * kGroup;
    const size_t left = k < depth ? HWY_MIN(lanes, depth - k) : 0;
    const auto v = left == lanes ? hn::LoadU(d, row + k) : hn::LoadN(d, row + k, left);
    hn::StoreU(hn::Xor(v, sign), d, reinterpret_cast<int8_t*>(to + i));
  }
}

template <typename T>
HWY_NOINLINE void MultiplyInt8Panels(const Rows& out, const int8_t* a, int64_t a_stride,
                                     const Int8Panels& b, const Int8Scales& scales, int64_t row,
                                     int64_t rows, int64_t begin, int64_t end) {
  PanelMemory memory;
  const bool tiles = UsesTiles(rows);
  const int32_t shift = tiles ? 0 : 128;
  const size_t depth = static_cast<size_t>(b.depth);
  const WordPanels panels{reinterpret_cast<const uint32_t*>(b.data.get()),
                          static_cast<size_t>(b.Groups()), static_cast<size_t>(b.columns)};
  const auto fill = [&](size_t i, size_t from, size_t words, uint32_t* to) HWY_ATTR {
    const int8_t* source = a + (row + static_cast<int64_t>(i)) * a_stride;
    if (tiles) {
      FillInt8Words<false>(source, depth, from, words, to);
    } else {
      FillInt8Words<true>(source, depth, from, words, to);
    }
  };
  const auto finish = [&](size_t i, size_t count, size_t column, size_t columns, const int32_t* c,
                          size_t c_stride) HWY_ATTR {
    for (size_t r = 0; r < count; ++r) {
      const int64_t m = row + static_cast<int64_t>(i + r);
      FinishRow(c + r * c_stride, b, scales, shift, m, column, columns, out.Row<T>(m) + column);
    }
  };
  MultiplyWords<Int8Words>(
      static_cast<size_t>(rows), fill, panels, static_cast<size_t>(begin) * kPanel,
      std::min(static_cast<size_t>(end) * kPanel, panels.columns), tiles, memory, finish);
}

#else

template <typename T>
HWY_NOINLINE void MultiplyInt8Panels(const Rows& out, const int8_t* a, int64_t a_stride,
                                     const Int8Panels& b, const Int8Scales& scales, int64_t row,
                                     int64_t rows, int64_t begin, int64_t end) {
  const auto prepared = hwy::AllocateAligned<Prepared>(kBlockRows * kBlockGroups * kGroup);
  const auto sums = hwy::AllocateAligned<int32_t>(kBlockRows * kCStride);
  const auto widened = hwy::AllocateAligned<int16_t>(kBlockGroups * kWidened);
  const size_t lanes = hn::Lanes(F32());
  const size_t groups = static_cast<size_t>(b.Groups());
  const size_t depth = static_cast<size_t>(b.depth);
  const size_t last = static_cast<size_t>(end) * kPanel;
  const size_t count = static_cast<size_t>(rows);
  for (size_t column = static_cast<size_t>(begin) * kPanel; column < last;
       column += kBlockColumns) {
    const size_t stop = HWY_MIN(last, column + kBlockColumns);
    if (groups == 0) std::fill(sums.get(), sums.get() + kBlockRows * kCStride, 0);
    for (size_t g = 0; g < groups; g += kBlockGroups) {
      const size_t part = HWY_MIN(kBlockGroups, groups - g);
      const size_t elements = HWY_MIN(part * kGroup, depth - g * kGroup);
      for (size_t r = 0; r < count; ++r) {
        Prepare(a + (row + static_cast<int64_t>(r)) * a_stride + g * kGroup, elements,
                prepared.get() + r * part * kGroup);
      }
      for (size_t n = column; n < stop;) {
        const size_t inside = n % kPanel;
        const int8_t* b0 = b.data.get() + ((n - inside) * groups + g * kPanel + inside) * kGroup;
        // If a vector is as long as a panel, the next panel is processed with it, if there is one.
        const bool pair = lanes < kPanel || n + kPanel < stop;
        const int8_t* b1 = lanes < kPanel ? b0 + lanes * kGroup
                           : pair         ? b0 + kPanel * groups * kGroup
                                          : b0;
        int32_t* to = sums.get() + (n - column);
        const Packed packed{b0, b1};
        if (count >= kWidenFrom) {
          Widen(packed, part, widened.get());
          MultiplyTiles(prepared.get(), part * kGroup, count, Widened{widened.get()}, part, to,
                        kCStride, g != 0);
        } else {
          MultiplyTiles(prepared.get(), part * kGroup, count, packed, part, to, kCStride, g != 0);
        }
        n += pair ? 2 * lanes : lanes;
      }
    }
    const size_t used = HWY_MIN(stop, static_cast<size_t>(b.columns)) - column;
    for (size_t r = 0; r < count; ++r) {
      const int64_t m = row + static_cast<int64_t>(r);
      FinishRow(sums.get() + r * kCStride, b, scales, 0, m, column, used, out.Row<T>(m) + column);
    }
  }
}

#endif  // VLLM_WORDS

// Computes items [begin, end): the panels for the first block of rows, then those for the second,
// and so on.
template <typename T>
void MultiplyInt8Items(const Rows& out, const int8_t* a, int64_t a_stride, const Int8Panels& b,
                       const Int8Scales& scales, int64_t block_rows, int64_t begin, int64_t end) {
  const int64_t panels = b.Count();
  while (begin < end) {
    const int64_t block = begin / panels;
    const int64_t panel = begin % panels;
    const int64_t stop = std::min(panels, panel + end - begin);
    const int64_t row = block * block_rows;
    MultiplyInt8Panels<T>(out, a, a_stride, b, scales, row, std::min(block_rows, out.count - row),
                          panel, stop);
    begin += stop - panel;
  }
}

void Int8MatMulItems(const Rows& out, const int8_t* a, int64_t a_stride, const Int8Panels& b,
                     const Int8Scales& scales, int64_t block_rows, int64_t begin, int64_t end) {
  WithType(out.dtype, [&](auto element) HWY_ATTR {
    MultiplyInt8Items<decltype(element)>(out, a, a_stride, b, scales, block_rows, begin, end);
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

HWY_EXPORT(Int8MatMulItems);

Int8Panels PackInt8(const int8_t* from, int64_t row_stride, int64_t column_stride, int64_t depth,
                    int64_t columns) {
  constexpr int64_t kWidth = Int8Panels::kPanel, kGroupSize = Int8Panels::kGroup;
  Int8Panels b;
  b.depth = depth;
  b.columns = columns;
  b.words = MultipliesWords();
  const int64_t groups = b.Groups();
  const size_t size = static_cast<size_t>(b.Count() * kWidth * groups * kGroupSize);
  b.data = hwy::AllocateAligned<int8_t>(size + 1);
  if (b.data == nullptr) return b;
  std::fill(b.data.get(), b.data.get() + size, int8_t{0});
  b.sums.assign(static_cast<size_t>(b.Count() * kWidth), 0);
  ParallelFor(columns, depth, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      int8_t* to = b.data.get() + (n / kWidth * groups * kWidth + n % kWidth) * kGroupSize;
      int32_t sum = 0;
      for (int64_t k = 0; k < depth; ++k) {
        const int8_t value = from[k * row_stride + n * column_stride];
        to[k / kGroupSize * kWidth * kGroupSize + k % kGroupSize] = value;
        sum += value;
      }
      b.sums[static_cast<size_t>(n)] = sum;
    }
  });
  return b;
}

void Int8MatMul(const Rows& out, const int8_t* a, int64_t a_stride, const Int8Panels& b,
                const Int8Scales& scales) {
  auto& function = VLLM_CPU_DISPATCH(Int8MatMulItems);
  if (out.count == 0 || b.columns == 0) return;
  const int64_t block_rows =
      b.words ? GetWordBlockRows(out.count, b.Groups()) : GetProductBlockRows(out.count);
  const int64_t blocks = (out.count + block_rows - 1) / block_rows;
  ParallelFor(blocks * b.Count(), Int8Panels::kPanel * (b.depth + 1),
              [&](int64_t begin, int64_t end) {
                function(out, a, a_stride, b, scales, block_rows, begin, end);
              });
}

}  // namespace vllm
#endif  // HWY_ONCE
