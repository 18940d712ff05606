// SPDX-License-Identifier: Apache-2.0
// Loads rows in which elements of two kinds alternate. Compiled once for each target.
#if defined(VLLM_CORE_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_PAIRS_INL_H_
#undef VLLM_CORE_PAIRS_INL_H_
#else
#define VLLM_CORE_PAIRS_INL_H_
#endif

#include <cstddef>

#include "hwy/highway.h"

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Loads 2 * Lanes(F32()) elements from `p` and separates the even from the odd ones.
template <typename T>
HWY_INLINE void LoadPairs(const T* HWY_RESTRICT p, VF32& even, VF32& odd) {
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    const auto both = hn::LoadU(hn::Repartition<T, F32>(), p);
    even = hn::PromoteEvenTo(F32(), both);
    odd = hn::PromoteOddTo(F32(), both);
  } else {
    const VF32 low = Load(p), high = Load(p + hn::Lanes(F32()));
    even = hn::ConcatEven(F32(), high, low);
    odd = hn::ConcatOdd(F32(), high, low);
  }
}

// Loads the first n <= Lanes(F32()) pairs from `p`; the other lanes are zero.
template <typename T>
HWY_INLINE void LoadPairsTail(const T* HWY_RESTRICT p, size_t n, VF32& even, VF32& odd) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 low = LoadTail(p, HWY_MIN(lanes, 2 * n)),
             high = 2 * n <= lanes ? hn::Zero(F32()) : LoadTail(p + lanes, 2 * n - lanes);
  even = hn::ConcatEven(F32(), high, low);
  odd = hn::ConcatOdd(F32(), high, low);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_PAIRS_INL_H_
