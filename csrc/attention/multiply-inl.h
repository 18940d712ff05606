// SPDX-License-Identifier: Apache-2.0
// Multiplies a few rows by panels of 16 columns. Attention uses no other products. Compiled once
// for each target.
#if defined(VLLM_ATTENTION_MULTIPLY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ATTENTION_MULTIPLY_INL_H_
#undef VLLM_ATTENTION_MULTIPLY_INL_H_
#else
#define VLLM_ATTENTION_MULTIPLY_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"

#include "attention/kv_cache.h"
#include "core/fp8-inl.h"
#include "core/pairs-inl.h"
#include "core/simd-inl.h"
#include "core/words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

inline constexpr size_t kPanel = static_cast<size_t>(CachePages::kPanel);
// Whether a vector is as long as a panel. Two vectors of columns then come from two panels.
HWY_INLINE bool IsVectorPanel() { return hn::Lanes(F32()) == kPanel; }

// The columns of one product: one vector, two vectors from different places, or two adjacent
// vectors.
enum class Columns { kOne, kApart, kSideBySide };

// Two adjacent vectors of bfloat16 can be read as one vector of float32, each of which contains an
// even and an odd element. A shift and a mask separate them in half the instructions that widening
// two halves takes. The sums are then those of the even and the odd columns.
template <Columns kColumns, typename T>
inline constexpr bool kAlternate =
    kColumns == Columns::kSideBySide && hwy::IsSame<T, hwy::bfloat16_t>();

// Whether rows of A are multiplied in pairs of bfloat16, by one word for each column.
template <typename A>
inline constexpr bool kInWords = hwy::IsSame<A, hwy::bfloat16_t>();

// The number of rows whose sums are kept in registers. AVX-512 has 32 registers for 16 sums. With
// two vectors of columns, twelve sums, two vectors and a factor fit into sixteen registers, and
// twelve sums suffice to keep two multipliers with a latency of four or five cycles busy.
inline constexpr size_t kBlockRows = HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 ? 8 : 6;

#if VLLM_WORDS
// Returns the words of a panel's row and the next one, from both rows. Without `whole` the next row
// is zeros and is not read.
HWY_INLINE VF32 LoadWords(const hwy::bfloat16_t* HWY_RESTRICT rows, bool whole) {
  const hn::Repartition<uint16_t, F32> d;
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                      21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                      11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const auto* from = reinterpret_cast<const uint16_t*>(rows);
  const auto both = whole ? hn::LoadU(d, from) : hn::LoadN(d, from, kPanel);
  return hn::BitCast(F32(), hn::TableLookupLanes(both, hn::SetTableIndices(d, kOrder)));
}
#endif

// Loads vectors of columns: for A of float32 elements of a row, for A of bfloat16 words of two.
template <Columns kColumns, typename A, typename T>
HWY_INLINE void LoadColumns(const T* HWY_RESTRICT b0, const T* HWY_RESTRICT b1, bool whole,
                            VF32& v0, VF32& v1) {
  if constexpr (kInWords<A>) {
    v0 = LoadWords(b0, whole);
    if constexpr (kColumns != Columns::kOne) v1 = LoadWords(b1, whole);
  } else if constexpr (kAlternate<kColumns, T>) {
    LoadPairs(b0, v0, v1);
  } else {
    v0 = Load(b0);
    if constexpr (kColumns != Columns::kOne) v1 = Load(b1);
  }
}

template <Columns kColumns>
HWY_INLINE void MultiplyAdd(const float* HWY_RESTRICT a, bool /*whole*/, VF32 b0, VF32 b1, VF32& c0,
                            VF32& c1) {
  const VF32 factor = hn::Set(F32(), *a);
  c0 = hn::MulAdd(factor, b0, c0);
  if constexpr (kColumns != Columns::kOne) c1 = hn::MulAdd(factor, b1, c1);
}

#if VLLM_WORDS
template <Columns kColumns>
HWY_INLINE void MultiplyAdd(const hwy::bfloat16_t* HWY_RESTRICT a, bool whole, VF32 b0, VF32 b1,
                            VF32& c0, VF32& c1) {
  uint32_t word = 0;
  std::memcpy(&word, a, whole ? 4 : 2);
  const VU32 factor = hn::Set(U32(), word);
  c0 = AddBFloat16Words(factor, hn::BitCast(U32(), b0), c0);
  if constexpr (kColumns != Columns::kOne)
    c1 = AddBFloat16Words(factor, hn::BitCast(U32(), b1), c1);
}
#endif

template <Columns kColumns, bool kAdd, typename T>
HWY_INLINE void StoreSums(VF32 c0, VF32 c1, float* HWY_RESTRICT to) {
  const F32 d;
  if constexpr (kAlternate<kColumns, T>) {
    const VF32 even = c0, odd = c1;
    c0 = hn::InterleaveWholeLower(d, even, odd);
    c1 = hn::InterleaveWholeUpper(d, even, odd);
  }
  Store(kAdd ? hn::Add(c0, Load(to)) : c0, to);
  if constexpr (kColumns != Columns::kOne) {
    to += hn::Lanes(d);
    Store(kAdd ? hn::Add(c1, Load(to)) : c1, to);
  }
}

// Returns the address `distance` elements after p. It may be outside any object, because it is only
// used for prefetching.
template <typename T>
HWY_INLINE const T* AdvancePointer(const T* p, ptrdiff_t distance) {
  return reinterpret_cast<const T*>(reinterpret_cast<uintptr_t>(p) +
                                    static_cast<uintptr_t>(distance) * sizeof(T));
}

// Prefetches a line to the second-level cache. A core follows more requests there than in its
// first-level cache: on Zen 4, two cores read blocks of 8 KiB in random order with 23 GB/s instead
// of 14.
HWY_INLINE void Prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

// The additional work of MultiplyBlock.
enum class Extra {
  kNone,
  kAdd,       // the products are added to what c holds
  kPrefetch,  // memory that is multiplied later is prefetched
  kAddAndPrefetch
};
inline constexpr bool Adds(Extra extra) {
  return extra == Extra::kAdd || extra == Extra::kAddAndPrefetch;
}
inline constexpr bool Prefetches(Extra extra) {
  return extra == Extra::kPrefetch || extra == Extra::kAddAndPrefetch;
}

// c[r] = sum_i a[r, i] * b[i] for kRows rows of A and one vector of columns, or two. load(i, whole,
// v0, v1) loads row i of b, or the words of rows i and i + 1; without `whole` (a
// std::bool_constant) there is no row i + 1. store(r, c0, c1) gets the sums.
template <size_t kRows, Columns kColumns, typename A, class Load, class Store>
HWY_INLINE void MultiplyBlock(size_t n, const A* HWY_RESTRICT a, size_t a_stride, const Load& load,
                              const Store& store) {
  // Individual variables, not arrays: vectors of a size that is unknown at compile time cannot be
  // elements of arrays.
  VF32 c00 = hn::Zero(F32()), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
  VF32 c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
  VF32 c60 = c00, c61 = c00, c70 = c00, c71 = c00;
  const auto step = [&](size_t i, auto whole) VLLM_INLINE_ATTR {
    constexpr bool kWhole = decltype(whole)::value;
    VF32 v0 = hn::Zero(F32()), v1 = v0;
    load(i, whole, v0, v1);
    const A* at = a + i;
    MultiplyAdd<kColumns>(at, kWhole, v0, v1, c00, c01);
    if constexpr (kRows > 1) MultiplyAdd<kColumns>(at + a_stride, kWhole, v0, v1, c10, c11);
    if constexpr (kRows > 2) MultiplyAdd<kColumns>(at + 2 * a_stride, kWhole, v0, v1, c20, c21);
    if constexpr (kRows > 3) MultiplyAdd<kColumns>(at + 3 * a_stride, kWhole, v0, v1, c30, c31);
    if constexpr (kRows > 4) MultiplyAdd<kColumns>(at + 4 * a_stride, kWhole, v0, v1, c40, c41);
    if constexpr (kRows > 5) MultiplyAdd<kColumns>(at + 5 * a_stride, kWhole, v0, v1, c50, c51);
    if constexpr (kRows > 6) MultiplyAdd<kColumns>(at + 6 * a_stride, kWhole, v0, v1, c60, c61);
    if constexpr (kRows > 7) MultiplyAdd<kColumns>(at + 7 * a_stride, kWhole, v0, v1, c70, c71);
  };
  constexpr size_t kTogether = kInWords<A> ? 2 : 1;
  size_t i = 0;
  for (; i + kTogether <= n; i += kTogether) step(i, std::true_type());
  if (kTogether > 1 && i < n) step(i, std::false_type());
  store(0, c00, c01);
  if constexpr (kRows > 1) store(1, c10, c11);
  if constexpr (kRows > 2) store(2, c20, c21);
  if constexpr (kRows > 3) store(3, c30, c31);
  if constexpr (kRows > 4) store(4, c40, c41);
  if constexpr (kRows > 5) store(5, c50, c51);
  if constexpr (kRows > 6) store(6, c60, c61);
  if constexpr (kRows > 7) store(7, c70, c71);
}

// The same for any number of rows with 1 <= rows <= kBlockRows.
template <Columns kColumns, typename A, class Load, class Store>
HWY_INLINE void MultiplyRows(size_t rows, size_t n, const A* HWY_RESTRICT a, size_t a_stride,
                             const Load& load, const Store& store) {
  const auto multiply = [&](auto count) HWY_ATTR {
    MultiplyBlock<decltype(count)::value, kColumns>(n, a, a_stride, load, store);
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
    case 6:
      return multiply(std::integral_constant<size_t, 6>());
    default:
      break;
  }
  if constexpr (kBlockRows > 6) {
    if (rows == 7) return multiply(std::integral_constant<size_t, 7>());
    multiply(std::integral_constant<size_t, 8>());
  }
}

// Multiplies rows by vectors of columns at b0 and b1. Rows of b are b_stride apart, which is kPanel
// for words. Prefetches memory `ahead` elements after b0. It does so line by line along with the
// products, because a processor stalls when it has more outstanding requests than it can track.
template <Columns kColumns, Extra kExtra, typename A, typename T>
HWY_NOINLINE void MultiplyColumns(size_t rows, size_t n, const A* HWY_RESTRICT a, size_t a_stride,
                                  const T* HWY_RESTRICT b0, const T* HWY_RESTRICT b1,
                                  size_t b_stride, ptrdiff_t ahead, float* HWY_RESTRICT c,
                                  size_t c_stride) {
  MultiplyRows<kColumns>(
      rows, n, a, a_stride,
      [&](size_t i, auto whole, VF32& v0, VF32& v1) VLLM_INLINE_ATTR {
        const T *from0 = b0 + i * b_stride, *from1 = b1 + i * b_stride;
        if constexpr (Prefetches(kExtra)) {
          Prefetch(AdvancePointer(from0, ahead));
          if constexpr (kColumns == Columns::kApart) Prefetch(AdvancePointer(from1, ahead));
        }
        LoadColumns<kColumns, A>(from0, from1, decltype(whole)::value, v0, v1);
      },
      [&](size_t r, VF32 c0, VF32 c1)
          VLLM_INLINE_ATTR { StoreSums<kColumns, Adds(kExtra), T>(c0, c1, c + r * c_stride); });
}

// Multiplies up to kBlockRows rows by one panel of 16 columns (panel1 is null) or two. Rows of a
// panel are b_stride apart. No CPU has vectors of more than 16 floats.
template <Extra kExtra, typename A, typename T>
HWY_INLINE void MultiplyPanels(size_t rows, size_t n, const A* HWY_RESTRICT a, size_t a_stride,
                               const T* HWY_RESTRICT panel0, const T* HWY_RESTRICT panel1,
                               size_t b_stride, ptrdiff_t ahead, float* HWY_RESTRICT c,
                               size_t c_stride) {
  const size_t lanes = hn::Lanes(F32());
  if (kInWords<A> || IsVectorPanel()) {
    if (panel1 == nullptr) {
      MultiplyColumns<Columns::kOne, kExtra>(rows, n, a, a_stride, panel0, panel0, b_stride, ahead,
                                             c, c_stride);
    } else {
      MultiplyColumns<Columns::kApart, kExtra>(rows, n, a, a_stride, panel0, panel1, b_stride,
                                               ahead, c, c_stride);
    }
    return;
  }
  if constexpr (!kInWords<A>) {
    for (size_t j = 0; j < kPanel; j += 2 * lanes) {
      MultiplyColumns<Columns::kSideBySide, kExtra>(
          rows, n, a, a_stride, panel0 + j, panel0 + j + lanes, b_stride, ahead, c + j, c_stride);
    }
    if (panel1 == nullptr) return;
    for (size_t j = 0; j < kPanel; j += 2 * lanes) {
      MultiplyColumns<Columns::kSideBySide, kExtra>(rows, n, a, a_stride, panel1 + j,
                                                    panel1 + j + lanes, b_stride, ahead,
                                                    c + kPanel + j, c_stride);
    }
  }
}

// Returns the number of rows of the next block if `rows` are left, so that blocks have nearly the
// same size.
HWY_INLINE size_t ChooseBlockRows(size_t rows) {
  const size_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  return (rows + blocks - 1) / blocks;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ATTENTION_MULTIPLY_INL_H_
