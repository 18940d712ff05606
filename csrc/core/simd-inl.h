// SPDX-License-Identifier: Apache-2.0
// Loads elements of every type as float32 and stores float32 as every type. Compiled once for each
// target.
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

// For lambdas that use vectors and must not become functions, because vectors that they capture
// would then be in memory. Compilers make one of a lambda that is called twice.
#undef VLLM_INLINE_ATTR
#define VLLM_INLINE_ATTR __attribute__((always_inline)) HWY_ATTR

using F32 = hn::ScalableTag<float>;
using VF32 = hn::Vec<F32>;

// Converts elements of T to float32.
template <typename T>
HWY_INLINE VF32 Promote(hn::Vec<hn::Rebind<T, F32>> v) {
  const F32 d;
#if HWY_TARGET == HWY_SSE2
  // Without a conversion instruction, Highway converts infinity and NaN of float16 to large
  // numbers. Here the bits are moved to their places in float32, the result is multiplied by the
  // power of two of the biases' difference, which also handles subnormals, and the exponent of
  // infinity and NaN is set.
  if constexpr (hwy::IsSame<T, hwy::float16_t>()) {
    const hn::RebindToUnsigned<F32> du;
    const auto bits = hn::PromoteTo(du, hn::BitCast(hn::Rebind<uint16_t, F32>(), v));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7FFFu)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto special =
        hn::IfThenElseZero(hn::Gt(magnitude, hn::Set(du, 0x7BFFu << 13)), hn::Set(du, 0x7F800000u));
    const auto finite = hn::BitCast(du, hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f)));
    return hn::BitCast(d, hn::Or3(sign, special, finite));
  }
#endif
  return hn::PromoteTo(d, v);
}

// Loads Lanes(F32()) elements from `p` as float32.
template <typename T>
HWY_INLINE VF32 Load(const T* HWY_RESTRICT p) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return hn::LoadU(F32(), p);
  } else {
    return Promote<T>(hn::LoadU(hn::Rebind<T, F32>(), p));
  }
}

// Loads the first n <= Lanes(F32()) elements from `p` as float32; the other lanes are zero.
template <typename T>
HWY_INLINE VF32 LoadTail(const T* HWY_RESTRICT p, size_t n) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return hn::LoadN(F32(), p, n);
  } else {
    return Promote<T>(hn::LoadN(hn::Rebind<T, F32>(), p, n));
  }
}

// Stores Lanes(F32()) elements to `p`, rounded to T, ties to even.
template <typename T>
HWY_INLINE void Store(VF32 v, T* HWY_RESTRICT p) {
  if constexpr (sizeof(T) == sizeof(float)) {
    hn::StoreU(v, F32(), p);
  } else {
    const hn::Rebind<T, F32> dt;
    hn::StoreU(hn::DemoteTo(dt, v), dt, p);
  }
}

// Stores 2 * Lanes(F32()) elements to `p`. For bfloat16 on targets without a conversion
// instruction, packing two vectors costs as much as packing one.
template <typename T>
HWY_INLINE void StoreTwo(VF32 v0, VF32 v1, T* HWY_RESTRICT p) {
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    const hn::Repartition<T, F32> dt;
    hn::StoreU(hn::OrderedDemote2To(dt, v0, v1), dt, p);
  } else {
    Store(v0, p);
    Store(v1, p + hn::Lanes(F32()));
  }
}

// Stores the first n <= Lanes(F32()) elements to `p`; memory after them is not accessed.
template <typename T>
HWY_INLINE void StoreTail(VF32 v, T* HWY_RESTRICT p, size_t n) {
  if constexpr (sizeof(T) == sizeof(float)) {
    hn::StoreN(v, F32(), p, n);
  } else {
    const hn::Rebind<T, F32> dt;
    hn::StoreN(hn::DemoteTo(dt, v), dt, p, n);
  }
}

// Rounds v to T and back: returns the value that a tensor of T would hold.
template <typename T>
HWY_INLINE VF32 RoundTo(VF32 v) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return v;
  } else {
    return Promote<T>(hn::DemoteTo(hn::Rebind<T, F32>(), v));
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_SIMD_INL_H_
