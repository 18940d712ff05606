// SPDX-License-Identifier: Apache-2.0
// Products of rows and a matrix in panels of 16 columns, for vectors of which a panel has one or
// two: AVX-512 and AVX2. Whole panels only. The kind of product says what is multiplied:
//
//   Word               an element of a packed row of A, four bytes
//   Packed             an element of B; 16 of them are a row of a panel
//   Sum, Sums          an element of the result, and a vector of them
//   Load(const Packed*), Broadcast(const Word*)   vectors of B and of A
//   Add(a, b, sums)    sums + a * b
#if defined(VLLM_GEMM_PANEL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_GEMM_PANEL_TILE_INL_H_
#undef VLLM_GEMM_PANEL_TILE_INL_H_
#else
#define VLLM_GEMM_PANEL_TILE_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "gemm/blocks.h"
#include "gemm/panel_memory.h"

#undef VLLM_PANEL_TILES
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
#define VLLM_PANEL_TILES 1
#else
#define VLLM_PANEL_TILES 0
#endif

#if VLLM_PANEL_TILES
HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

constexpr size_t kPanelColumns = 16;
constexpr size_t kPanelVectors = kPanelColumns / hn::MaxLanes(F32());
// The rows and vectors of columns whose sums are in registers at once. AVX-512 has 32 registers for
// 24 sums, for which each step loads three vectors and eight scalars. Six rows and four panels are
// as fast for many rows, but batches are often multiples of eight; twelve rows and two panels are 7
// % slower. AVX2 has 16 registers for 12 sums.
constexpr size_t kVectorRows = kPanelVectors == 1 ? 8 : 6;
constexpr size_t kTileVectors = kPanelVectors == 1 ? 3 : 2;
constexpr size_t kTilePanels = kTileVectors / kPanelVectors;
// How far ahead of its use a part of B is loaded to the first-level cache. Half as
// many and twice as many are one percent slower.
constexpr size_t kAheadBytes = 8 * 64;

// The sums of a row and up to three vectors of columns.
template <class Dot>
struct RowSums {
  typename Dot::Sums s0, s1, s2;
};

// c (+)= the products of kRows rows of A and kVectors vectors of columns of B. The order of
// additions is that of the depth, no matter how it is divided. Elements at `next` on, as many as a
// panel has, are prefetched to the second-level cache.
template <class Dot, size_t kRows, size_t kVectors>
HWY_INLINE void MultiplyPanelTile(const typename Dot::Word* HWY_RESTRICT a, size_t a_stride,
                                  const typename Dot::Packed* HWY_RESTRICT b, size_t panel,
                                  size_t depth, typename Dot::Sum* HWY_RESTRICT c, size_t c_stride,
                                  bool add, const typename Dot::Packed* next) {
  static_assert(kRows <= kVectorRows && kVectors <= kTileVectors, "they have no registers");
  const hn::ScalableTag<typename Dot::Sum> d;
  constexpr size_t kLanes = kPanelColumns / kPanelVectors;
  const size_t distance = kPanelVectors == 1 ? panel : kLanes;  // from one vector of B to the next
  using Row = RowSums<Dot>;
  const auto begin = [&](size_t r) HWY_ATTR {
    const typename Dot::Sum* from = c + r * c_stride;
    Row row;
    row.s0 = add ? hn::LoadU(d, from) : hn::Zero(d);
    if constexpr (kVectors > 1) row.s1 = add ? hn::LoadU(d, from + kLanes) : hn::Zero(d);
    if constexpr (kVectors > 2) row.s2 = add ? hn::LoadU(d, from + 2 * kLanes) : hn::Zero(d);
    return row;
  };
  Row r0 = begin(0), r1, r2, r3, r4, r5, r6, r7;
  if constexpr (kRows > 1) r1 = begin(1);
  if constexpr (kRows > 2) r2 = begin(2);
  if constexpr (kRows > 3) r3 = begin(3);
  if constexpr (kRows > 4) r4 = begin(4);
  if constexpr (kRows > 5) r5 = begin(5);
  if constexpr (kRows > 6) r6 = begin(6);
  if constexpr (kRows > 7) r7 = begin(7);
  for (size_t k = 0; k < depth; ++k, b += kPanelColumns, next += kPanelColumns) {
    constexpr size_t kAhead = kAheadBytes / sizeof(*b);
    const auto v0 = Dot::Load(b);
    auto v1 = v0, v2 = v0;
    if constexpr (kVectors > 1) v1 = Dot::Load(b + distance);
    if constexpr (kVectors > 2) v2 = Dot::Load(b + 2 * distance);
    // With fewer rows the CPU's own prefetching is faster.
    if constexpr (kRows > kVectorRows / 2) {
      hwy::Prefetch(b + kAhead);
      if constexpr (kVectors > kPanelVectors) hwy::Prefetch(b + panel + kAhead);
      if constexpr (kVectors > 2 * kPanelVectors) hwy::Prefetch(b + 2 * panel + kAhead);
    }
    __builtin_prefetch(next, 0, 2);
    const auto step = [&](size_t r, Row& row) HWY_ATTR {
      const auto x = Dot::Broadcast(a + r * a_stride + k);
      row.s0 = Dot::Add(x, v0, row.s0);
      if constexpr (kVectors > 1) row.s1 = Dot::Add(x, v1, row.s1);
      if constexpr (kVectors > 2) row.s2 = Dot::Add(x, v2, row.s2);
    };
    step(0, r0);
    if constexpr (kRows > 1) step(1, r1);
    if constexpr (kRows > 2) step(2, r2);
    if constexpr (kRows > 3) step(3, r3);
    if constexpr (kRows > 4) step(4, r4);
    if constexpr (kRows > 5) step(5, r5);
    if constexpr (kRows > 6) step(6, r6);
    if constexpr (kRows > 7) step(7, r7);
  }
  const auto end = [&](size_t r, const Row& row) HWY_ATTR {
    typename Dot::Sum* to = c + r * c_stride;
    hn::StoreU(row.s0, d, to);
    if constexpr (kVectors > 1) hn::StoreU(row.s1, d, to + kLanes);
    if constexpr (kVectors > 2) hn::StoreU(row.s2, d, to + 2 * kLanes);
  };
  end(0, r0);
  if constexpr (kRows > 1) end(1, r1);
  if constexpr (kRows > 2) end(2, r2);
  if constexpr (kRows > 3) end(3, r3);
  if constexpr (kRows > 4) end(4, r4);
  if constexpr (kRows > 5) end(5, r5);
  if constexpr (kRows > 6) end(6, r6);
  if constexpr (kRows > 7) end(7, r7);
}

// The same for any number of rows. Each of the first tiles prefetches one of the panels that
// follow.
template <class Dot, size_t kVectors>
HWY_NOINLINE void MultiplyPanelTiles(const typename Dot::Word* a, size_t a_stride, size_t rows,
                                     const typename Dot::Packed* b, size_t panel, size_t depth,
                                     typename Dot::Sum* c, size_t c_stride, bool add,
                                     const typename Dot::Packed* next) {
  size_t prefetched = 0;
  const auto get_next = [&]() {
    // Loading a part that is in the cache costs nothing.
    return prefetched < kVectors / kPanelVectors ? next + prefetched++ * panel : b;
  };
  for (; rows >= kVectorRows;
       rows -= kVectorRows, a += kVectorRows * a_stride, c += kVectorRows * c_stride) {
    MultiplyPanelTile<Dot, kVectorRows, kVectors>(a, a_stride, b, panel, depth, c, c_stride, add,
                                                  get_next());
  }
  const auto multiply = [&](auto count) HWY_ATTR {
    MultiplyPanelTile<Dot, decltype(count)::value, kVectors>(a, a_stride, b, panel, depth, c,
                                                             c_stride, add, get_next());
  };
  switch (rows) {
    case 1:
      return multiply(std::integral_constant<size_t, 1>());
    case 2:
      return multiply(std::integral_constant<size_t, 2>());
    case 3:
      return multiply(std::integral_constant<size_t, 3>());
    case 4:
      return multiply(std::integral_constant<size_t, 4>());
    case 5:
      return multiply(std::integral_constant<size_t, 5>());
    default:
      break;
  }
  if constexpr (kVectorRows > 6) {
    if (rows == 6) multiply(std::integral_constant<size_t, 6>());
    if (rows == 7) multiply(std::integral_constant<size_t, 7>());
  }
}

// Multiplies `rows` rows by columns [first, last) of B, of which each panel is `depth` > 0 rows and
// whole. fill(row, to) writes a row of A, `depth` words. Passes results to finish(row, count,
// column, columns, c, c_stride): `count` rows from `row` on and up to three panels from `column`
// on.
//
// A is packed once for all columns, and each part of B is read from memory once for each block of
// rows, while the part before it is multiplied.
template <class Dot, typename Fill, typename Finish>
HWY_INLINE void MultiplyPanels(size_t rows, const Fill& fill, const typename Dot::Packed* b,
                               size_t depth, size_t first, size_t last, PanelMemory& memory,
                               const Finish& finish) {
  constexpr size_t kGroup = kTilePanels * kPanelColumns;
  // A single tile of rows prefetches so much further: a CPU loads one stream from memory too late,
  // and three by itself.
  constexpr size_t kFar = kTilePanels == 1 ? 4096 / sizeof(typename Dot::Packed) : 0;
  const size_t panel = depth * kPanelColumns;
  // Padding after each row, so that the rows of a tile do not share cache sets.
  const size_t a_stride = depth + kPanelColumns;
  const VectorBlocks blocks = GetVectorBlocks(static_cast<int64_t>(depth), kTilePanels);
  const size_t most_rows = static_cast<size_t>(blocks.rows);
  for (size_t row = 0; row < rows; row += most_rows) {
    const size_t count = HWY_MIN(most_rows, rows - row);
    // With a single tile of rows, no part of B is read twice.
    const size_t step = count <= kVectorRows ? depth : static_cast<size_t>(blocks.inner);
    auto* a = reinterpret_cast<typename Dot::Word*>(memory.GetA(count * a_stride));
    auto* c = reinterpret_cast<typename Dot::Sum*>(memory.GetC(count * kGroup));
    for (size_t r = 0; r < count; ++r) fill(row + r, a + r * a_stride);
    for (size_t n = first; n < last;) {
      // Three panels at a time, but two and two instead of three and one.
      const size_t left = (last - n + kPanelColumns - 1) / kPanelColumns;
      const size_t panels =
          left == kTilePanels + 1 ? HWY_MIN(kTilePanels, 2) : HWY_MIN(kTilePanels, left);
      for (size_t k = 0; k < depth; k += step) {
        const size_t part = HWY_MIN(step, depth - k);
        const auto* from = b + n * depth + k * kPanelColumns;
        const auto* next = count <= kVectorRows ? from + kFar
                           : k + part < depth   ? from + part * kPanelColumns
                                                : b + (n + panels * kPanelColumns) * depth;
        const auto multiply = [&](auto vectors) HWY_ATTR {
          MultiplyPanelTiles<Dot, decltype(vectors)::value>(a + k, a_stride, count, from, panel,
                                                            part, c, kGroup, k != 0, next);
        };
        if (panels == kTilePanels) {
          multiply(std::integral_constant<size_t, kTileVectors>());
        } else if constexpr (kTilePanels > 1) {
          if (panels == 1) {
            multiply(std::integral_constant<size_t, 1>());
          } else {
            multiply(std::integral_constant<size_t, 2>());
          }
        }
      }
      const size_t group = panels * kPanelColumns;
      finish(row, count, n, HWY_MIN(group, last - n), c, kGroup);
      n += group;
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();
#endif  // VLLM_PANEL_TILES

#endif  // VLLM_GEMM_PANEL_TILE_INL_H_
