// SPDX-License-Identifier: Apache-2.0
// Powers of two on vectors of float32. Compiled once for each target.
//
// 2^x is 2^n * 2^r, where n is the integer nearest to x and |r| <= 1/2. Adding a number whose unit
// in the last place is 1 rounds x to n and leaves n in the low bits of the sum, so no conversion is
// needed. Highway's Exp takes twice as many instructions, which measurably slows activations of
// 16-bit elements.
#if defined(VLLM_CORE_EXP2_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_EXP2_INL_H_
#undef VLLM_CORE_EXP2_INL_H_
#else
#define VLLM_CORE_EXP2_INL_H_
#endif

#include "hwy/highway.h"

#include "core/constants.h"
#include "core/reduce-inl.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Splits x into n + r. Returns x + `shift`, whose low bits contain n, and sets `r`.
HWY_INLINE VF32 SplitExponent(VF32 x, VF32 shift, VF32& r) {
  const VF32 shifted = hn::Add(x, shift);
  r = hn::Sub(x, hn::Sub(shifted, shift));
  return shifted;
}

// 2^r for |r| <= 1/2, as a polynomial with constant term 1 and minimal largest relative error,
// fitted by Lawson's iteration on 600 Chebyshev nodes. T is the element type of the result: the
// degree is 5 for float32 (error 9.2e-8) and 4 for 16-bit types (error 2.8e-6).
template <typename T>
HWY_INLINE VF32 Exp2OfFraction(VF32 r) {
  const F32 d;
  VF32 p;
  if constexpr (sizeof(T) == sizeof(float)) {
    p = hn::MulAdd(hn::Set(d, 0.0013264727f), r, hn::Set(d, 0.009671513f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.055507336f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.24022242f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.693147f));
  } else {
    p = hn::MulAdd(hn::Set(d, 0.009582853f), r, hn::Set(d, 0.055906426f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.24024099f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.6931242f));
  }
  return hn::MulAdd(p, r, hn::Set(d, 1.0f));
}

// 2^x for x <= 127, with a relative error below 2e-7; 0 for x < -125. NaN stays NaN.
HWY_INLINE VF32 Exp2(VF32 x) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const VF32 lowest = hn::Set(d, -125.0f);
  const auto vanishes = hn::Lt(x, lowest);
  x = hn::IfThenElse(vanishes, lowest, x);
  // The low bits of the sum are n + 127, the exponent bits of 2^n.
  VF32 r;
  const VF32 shifted = SplitExponent(x, hn::Set(d, 0x1.8p23f + 127.0f), r);
  // Multiplies instead of adding to the exponent bits of 2^r: for NaN, the low bits of the sum are
  // its payload, and adding them as integers could turn NaN into a number.
  const VF32 power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  return hn::IfThenZeroElse(vanishes, hn::Mul(Exp2OfFraction<float>(r), power));
}

// 2^x for x <= 0, with the precision of T. Below -126, where float32 has no normal numbers, the
// result is between 0 and the smallest normal number; from -127 on it is 0. The result for NaN is
// unspecified: callers multiply by the original NaN.
template <typename T>
HWY_INLINE VF32 Exp2OfNonPositive(VF32 x) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  VF32 r;
  const VF32 shifted =
      SplitExponent(LargerOfNumbers(x, hn::Set(d, -127.0f)), hn::Set(d, 0x1.8p23f), r);
  return hn::BitCast(d, hn::Add(hn::BitCast(du, Exp2OfFraction<T>(r)),
                                hn::ShiftLeft<23>(hn::BitCast(du, shifted))));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_EXP2_INL_H_
