// SPDX-License-Identifier: Apache-2.0
// Loads to float32 and stores from float32 for every element type. Compiled once for each target.
#if defined(VLLM_CORE_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_SIMD_INL_H_
#undef VLLM_CORE_SIMD_INL_H_
#else
#define VLLM_CORE_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using VF32 = hn::Vec<F32>;

// Lanes(F32()) elements from `p`, as float32.
template <typename T>
HWY_INLINE VF32 Load(const T* HWY_RESTRICT p) {
  const F32 d;
  if constexpr (sizeof(T) == sizeof(float)) {
    return hn::LoadU(d, p);
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<T, F32>(), p));
  }
}

// The first n < Lanes(F32()) elements from `p`, as float32; the other lanes are zero.
template <typename T>
HWY_INLINE VF32 LoadTail(const T* HWY_RESTRICT p, size_t n) {
  const F32 d;
  if constexpr (sizeof(T) == sizeof(float)) {
    return hn::LoadN(d, p, n);
  } else {
    return hn::PromoteTo(d, hn::LoadN(hn::Rebind<T, F32>(), p, n));
  }
}

// Lanes(F32()) elements to `p`, rounded to T, ties to even.
template <typename T>
HWY_INLINE void Store(VF32 v, T* HWY_RESTRICT p) {
  const F32 d;
  if constexpr (sizeof(T) == sizeof(float)) {
    hn::StoreU(v, d, p);
  } else {
    const hn::Rebind<T, F32> dt;
    hn::StoreU(hn::DemoteTo(dt, v), dt, p);
  }
}

// The first n < Lanes(F32()) elements to `p`; nothing behind them is touched.
template <typename T>
HWY_INLINE void StoreTail(VF32 v, T* HWY_RESTRICT p, size_t n) {
  const F32 d;
  if constexpr (sizeof(T) == sizeof(float)) {
    hn::StoreN(v, d, p, n);
  } else {
    const hn::Rebind<T, F32> dt;
    hn::StoreN(hn::DemoteTo(dt, v), dt, p, n);
  }
}

// v rounded to T and back: the value that a tensor of T would hold.
template <typename T>
HWY_INLINE VF32 RoundTo(VF32 v) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return v;
  } else {
    return hn::PromoteTo(F32(), hn::DemoteTo(hn::Rebind<T, F32>(), v));
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_SIMD_INL_H_
