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

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include "attention/kv_cache.h"
#include "core/fp8-inl.h"
#include "core/pairs-inl.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

inline constexpr size_t kPanel = static_cast<size_t>(CachePages::kPanel);
// The number of rows whose sums are kept in registers. With two vectors of columns, twelve sums,
// two vectors and a factor fit into sixteen registers, and twelve sums suffice to keep two
// multipliers with a latency of four or five cycles busy.
inline constexpr size_t kBlockRows = 6;

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

template <Columns kColumns, typename T>
HWY_INLINE void LoadColumns(const T* HWY_RESTRICT b0, const T* HWY_RESTRICT b1, VF32& v0,
                            VF32& v1) {
  if constexpr (kAlternate<kColumns, T>) {
    LoadPairs(b0, v0, v1);
  } else {
    v0 = Load(b0);
    if constexpr (kColumns != Columns::kOne) v1 = Load(b1);
  }
}

template <Columns kColumns>
HWY_INLINE void MultiplyAdd(float a, VF32 b0, VF32 b1, VF32& c0, VF32& c1) {
  const VF32 factor = hn::Set(F32(), a);
  c0 = hn::MulAdd(factor, b0, c0);
  if constexpr (kColumns != Columns::kOne) c1 = hn::MulAdd(factor, b1, c1);
}

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

// c[r, j] (+)= sum_i a[r, i] * b[i, j] for kRows rows and one vector of columns from b0, or two
// from b0 and b1. Row i of b is at i * b_stride. Prefetches memory `ahead` elements after b0. It
// does so line by line along with the products, because a processor stalls when it has more
// outstanding requests than it can track.
template <size_t kRows, Columns kColumns, Extra kExtra, typename T>
HWY_INLINE void MultiplyBlock(size_t n, const float* HWY_RESTRICT a, size_t a_stride,
                              const T* HWY_RESTRICT b0, const T* HWY_RESTRICT b1, size_t b_stride,
                              ptrdiff_t ahead, float* HWY_RESTRICT c, size_t c_stride) {
  // Individual variables, not arrays: vectors of a size that is unknown at compile time cannot be
  // elements of arrays.
  VF32 c00 = hn::Zero(F32()), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
  VF32 c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
  for (size_t i = 0; i < n; ++i) {
    if constexpr (Prefetches(kExtra)) hwy::Prefetch(AdvancePointer(b0 + i * b_stride, ahead));
    if constexpr (Prefetches(kExtra) && kColumns == Columns::kApart)
      hwy::Prefetch(AdvancePointer(b1 + i * b_stride, ahead));
    VF32 v0 = hn::Zero(F32()), v1 = v0;
    LoadColumns<kColumns>(b0 + i * b_stride, b1 + i * b_stride, v0, v1);
    MultiplyAdd<kColumns>(a[i], v0, v1, c00, c01);
    if constexpr (kRows > 1) MultiplyAdd<kColumns>(a[a_stride + i], v0, v1, c10, c11);
    if constexpr (kRows > 2) MultiplyAdd<kColumns>(a[2 * a_stride + i], v0, v1, c20, c21);
    if constexpr (kRows > 3) MultiplyAdd<kColumns>(a[3 * a_stride + i], v0, v1, c30, c31);
    if constexpr (kRows > 4) MultiplyAdd<kColumns>(a[4 * a_stride + i], v0, v1, c40, c41);
    if constexpr (kRows > 5) MultiplyAdd<kColumns>(a[5 * a_stride + i], v0, v1, c50, c51);
  }
  constexpr bool kAdd = Adds(kExtra);
  StoreSums<kColumns, kAdd, T>(c00, c01, c);
  if constexpr (kRows > 1) StoreSums<kColumns, kAdd, T>(c10, c11, c + c_stride);
  if constexpr (kRows > 2) StoreSums<kColumns, kAdd, T>(c20, c21, c + 2 * c_stride);
  if constexpr (kRows > 3) StoreSums<kColumns, kAdd, T>(c30, c31, c + 3 * c_stride);
  if constexpr (kRows > 4) StoreSums<kColumns, kAdd, T>(c40, c41, c + 4 * c_stride);
  if constexpr (kRows > 5) StoreSums<kColumns, kAdd, T>(c50, c51, c + 5 * c_stride);
}

// The same for any number of rows with 1 <= rows <= kBlockRows.
template <Columns kColumns, Extra kExtra, typename T>
HWY_NOINLINE void MultiplyRows(size_t rows, size_t n, const float* HWY_RESTRICT a, size_t a_stride,
                               const T* HWY_RESTRICT b0, const T* HWY_RESTRICT b1, size_t b_stride,
                               ptrdiff_t ahead, float* HWY_RESTRICT c, size_t c_stride) {
  switch (rows) {
    case 1:
      return MultiplyBlock<1, kColumns, kExtra>(n, a, a_stride, b0, b1, b_stride, ahead, c,
                                                c_stride);
    case 2:
      return MultiplyBlock<2, kColumns, kExtra>(n, a, a_stride, b0, b1, b_stride, ahead, c,
                                                c_stride);
    case 3:
      return MultiplyBlock<3, kColumns, kExtra>(n, a, a_stride, b0, b1, b_stride, ahead, c,
                                                c_stride);
    case 4:
      return MultiplyBlock<4, kColumns, kExtra>(n, a, a_stride, b0, b1, b_stride, ahead, c,
                                                c_stride);
    case 5:
      return MultiplyBlock<5, kColumns, kExtra>(n, a, a_stride, b0, b1, b_stride, ahead, c,
                                                c_stride);
    default:
      return MultiplyBlock<6, kColumns, kExtra>(n, a, a_stride, b0, b1, b_stride, ahead, c,
                                                c_stride);
  }
}

// Multiplies up to kBlockRows rows by one panel of 16 columns (panel1 is null) or two. Rows of a
// panel are b_stride apart. No CPU has vectors of more than 16 floats.
template <Extra kExtra, typename T>
HWY_INLINE void MultiplyPanels(size_t rows, size_t n, const float* HWY_RESTRICT a, size_t a_stride,
                               const T* HWY_RESTRICT panel0, const T* HWY_RESTRICT panel1,
                               size_t b_stride, ptrdiff_t ahead, float* HWY_RESTRICT c,
                               size_t c_stride) {
  const size_t lanes = hn::Lanes(F32());
  if (IsVectorPanel()) {
    if (panel1 == nullptr) {
      MultiplyRows<Columns::kOne, kExtra>(rows, n, a, a_stride, panel0, panel0, b_stride, ahead, c,
                                          c_stride);
    } else {
      MultiplyRows<Columns::kApart, kExtra>(rows, n, a, a_stride, panel0, panel1, b_stride, ahead,
                                            c, c_stride);
    }
    return;
  }
  for (size_t j = 0; j < kPanel; j += 2 * lanes) {
    MultiplyRows<Columns::kSideBySide, kExtra>(rows, n, a, a_stride, panel0 + j, panel0 + j + lanes,
                                               b_stride, ahead, c + j, c_stride);
  }
  if (panel1 == nullptr) return;
  for (size_t j = 0; j < kPanel; j += 2 * lanes) {
    MultiplyRows<Columns::kSideBySide, kExtra>(rows, n, a, a_stride, panel1 + j, panel1 + j + lanes,
                                               b_stride, ahead, c + kPanel + j, c_stride);
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
