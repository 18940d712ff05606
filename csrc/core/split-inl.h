// SPDX-License-Identifier: Apache-2.0
// Loads and stores two vectors at a time in the order that costs least, for kernels that treat all
// elements alike. Compiled once for each target.
#if defined(VLLM_CORE_SPLIT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_SPLIT_INL_H_
#undef VLLM_CORE_SPLIT_INL_H_
#else
#define VLLM_CORE_SPLIT_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "core/stream-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Whether two vectors of T contain the even and the odd elements, instead of the first and the
// second half. A bfloat16 is the upper half of a float32: without a conversion instruction, a shift
// and a mask separate two of them, and no element moves to another lane.
#undef VLLM_CONVERTS_BFLOAT16
#if HWY_ARCH_X86
#define VLLM_CONVERTS_BFLOAT16 (HWY_TARGET <= HWY_AVX3_ZEN4)
#elif HWY_ARCH_ARM
#define VLLM_CONVERTS_BFLOAT16 (HWY_TARGET_IS_SVE || HWY_NEON_HAVE_F32_TO_BF16C)
#else
#define VLLM_CONVERTS_BFLOAT16 1
#endif
template <typename T>
constexpr bool kSplits = hwy::IsSame<T, hwy::bfloat16_t>() && !VLLM_CONVERTS_BFLOAT16;

// Loads 2 * Lanes(F32()) elements from `p`. StoreSplit and StreamSplit restore their order.
template <typename T>
HWY_INLINE void LoadSplit(const T* p, VF32& v0, VF32& v1) {
  if constexpr (kSplits<T>) {
    const auto both = hn::LoadU(hn::Repartition<T, F32>(), p);
    v0 = hn::PromoteEvenTo(F32(), both);
    v1 = hn::PromoteOddTo(F32(), both);
  } else {
    v0 = Load(p);
    v1 = Load(p + hn::Lanes(F32()));
  }
}

// Loads 2 * Lanes(F32()) elements of another type from `p`, in the order in which LoadSplit loads
// those of T.
template <typename T, typename U>
HWY_INLINE void LoadSplitAs(const U* p, VF32& v0, VF32& v1) {
  const VF32 low = Load(p), high = Load(p + hn::Lanes(F32()));
  v0 = kSplits<T> ? hn::ConcatEven(F32(), high, low) : low;
  v1 = kSplits<T> ? hn::ConcatOdd(F32(), high, low) : high;
}

// Returns the bits of v with the upper half rounded to bfloat16, ties to even. The lower half of a
// NaN must be zero, because a carry would start there. This holds for NaN from arithmetic and for
// NaN from bfloat16 elements.
HWY_INLINE hn::Vec<hn::RebindToUnsigned<F32>> RoundUpperHalf(VF32 v) {
  const hn::RebindToUnsigned<F32> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  return hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
}

// Returns both as elements of bfloat16 in order.
HWY_INLINE hn::Vec<hn::Repartition<hwy::bfloat16_t, F32>> JoinSplit(VF32 v0, VF32 v1) {
  const hn::Repartition<uint16_t, F32> du16;
  const auto even = hn::BitCast(du16, hn::ShiftRight<16>(RoundUpperHalf(v0)));
  return hn::BitCast(hn::Repartition<hwy::bfloat16_t, F32>(),
                     hn::OddEven(hn::BitCast(du16, RoundUpperHalf(v1)), even));
}

// Stores the elements that LoadSplit has loaded, after changes, to `p`, rounded to T, ties to even.
// For NaN see RoundUpperHalf.
template <typename T>
HWY_INLINE void StoreSplit(VF32 v0, VF32 v1, T* p) {
  if constexpr (kSplits<T>) {
    hn::StoreU(JoinSplit(v0, v1), hn::Repartition<T, F32>(), p);
  } else {
    StoreTwo(v0, v1, p);
  }
}

// Like StoreSplit, but bypasses the caches: see StreamTwo.
template <typename T>
HWY_INLINE void StreamSplit(VF32 v0, VF32 v1, T* p) {
  if constexpr (kSplits<T>) {
    hn::Stream(JoinSplit(v0, v1), hn::Repartition<T, F32>(), p);
  } else {
    StreamTwo(v0, v1, p);
  }
}

// Like StoreSplit; returns the stored elements.
template <typename T>
HWY_INLINE void RoundAndStoreSplit(VF32& v0, VF32& v1, T* p) {
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    const hn::Repartition<T, F32> dt;
    if constexpr (kSplits<T>) {
      const auto rounded = JoinSplit(v0, v1);
      hn::StoreU(rounded, dt, p);
      v0 = hn::PromoteEvenTo(F32(), rounded);
      v1 = hn::PromoteOddTo(F32(), rounded);
    } else {
      const auto rounded = hn::OrderedDemote2To(dt, v0, v1);
      hn::StoreU(rounded, dt, p);
      v0 = hn::PromoteLowerTo(F32(), rounded);
      v1 = hn::PromoteUpperTo(F32(), rounded);
    }
  } else {
    v0 = RoundTo<T>(v0);
    v1 = RoundTo<T>(v1);
    StoreTwo(v0, v1, p);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_SPLIT_INL_H_
