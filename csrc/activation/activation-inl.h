// SPDX-License-Identifier: Apache-2.0
// Activation functions and gates on vectors of float32. T is the element type of the result; the
// functions are as precise as T requires. Compiled once for each target.
#if defined(VLLM_ACTIVATION_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ACTIVATION_ACTIVATION_INL_H_
#undef VLLM_ACTIVATION_ACTIVATION_INL_H_
#else
#define VLLM_ACTIVATION_ACTIVATION_INL_H_
#endif

#include "hwy/highway.h"

#include "core/constants.h"
#include "core/exp2-inl.h"
#include "core/pairs-inl.h"
#include "core/reduce-inl.h"
#include "core/span-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// a / b for b from 1 to about 5. A 16-bit result does not show the last bits of a quotient, so
// 16-bit types use a refined estimate, which takes a third of the time of a division.
template <typename T>
HWY_INLINE VF32 Divide(VF32 a, VF32 b) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return hn::Div(a, b);
  } else {
    const VF32 estimate = hn::ApproximateReciprocal(b);
    return hn::Mul(a, hn::Mul(estimate, hn::NegMulAdd(b, estimate, hn::Set(F32(), 2.0f))));
  }
}

// x * sigmoid(y). The exponent is -|y|, so nothing overflows.
template <typename T>
HWY_INLINE VF32 MultiplyBySigmoid(VF32 x, VF32 y) {
  const F32 d;
  const VF32 e = Exp2OfNonPositive<T>(hn::Mul(hn::Abs(y), hn::Set(d, -kLog2E)));
  const VF32 numerator = hn::IfNegativeThenElse(y, hn::Mul(x, e), x);
  return Divide<T>(numerator, hn::Add(hn::Set(d, 1.0f), e));
}

template <typename T>
struct Silu {
  HWY_INLINE VF32 operator()(VF32 x) const { return MultiplyBySigmoid<T>(x, x); }
};

template <typename T>
struct GeluQuick {
  HWY_INLINE VF32 operator()(VF32 x) const {
    return MultiplyBySigmoid<T>(x, hn::Mul(x, hn::Set(F32(), 1.702f)));
  }
};

// (1 + tanh(u)) / 2 is sigmoid(2u).
template <typename T>
struct GeluTanh {
  HWY_INLINE VF32 operator()(VF32 x) const {
    const F32 d;
    const VF32 square = hn::Mul(x, x);
    const VF32 factor = hn::MulAdd(square, hn::Set(d, 2 * 0.7978845608f * 0.044715f),
                                   hn::Set(d, 2 * 0.7978845608f));
    return MultiplyBySigmoid<T>(x, hn::Mul(x, factor));
  }
};

// x * Phi(x). The lower tail is Phi(-z) = exp(-z^2/2) * R(z), which keeps its relative precision
// where 1 + erf(x) cancels. R is a polynomial of degree 8 in t = 1 / (1 + 0.3 z) without a constant
// term. It was fitted to 0 <= z <= 14.6 (Phi underflows beyond that) by Lawson's iteration on 400
// Chebyshev nodes against 40-digit values of erfc. Its largest relative error is minimal: 1.7e-7.
template <typename T>
struct Gelu {
  HWY_INLINE VF32 operator()(VF32 x) const {
    const F32 d;
    const VF32 one = hn::Set(d, 1.0f);
    // Phi(-14.6) is 0 in float32. Up to there, the denominator of the quotient below is at most
    // 5.4.
    const VF32 z = SmallerOfNumbers(hn::Abs(x), hn::Set(d, 14.6f));
    const VF32 t = Divide<T>(one, hn::MulAdd(hn::Set(d, 0.3f), z, one));
    VF32 r = hn::Set(d, 0.035374343f);
    r = hn::MulAdd(r, t, hn::Set(d, -0.15595332f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.2042048f));
    r = hn::MulAdd(r, t, hn::Set(d, -0.0517118f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.12752248f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.1002268f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.12070408f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.11963253f));
    const VF32 e = Exp2OfNonPositive<T>(hn::Mul(hn::Mul(z, z), hn::Set(d, -0.5f * kLog2E)));
    const VF32 tail = hn::Mul(hn::Mul(r, t), e);
    return hn::Mul(x, hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail)));
  }
};

// max(x, 0)^2. NaN stays NaN.
template <typename T>
struct ReluSquared {
  HWY_INLINE VF32 operator()(VF32 x) const {
    return hn::Mul(x, hn::IfThenZeroElse(hn::Lt(x, hn::Zero(F32())), x));
  }
};

// A gate that returns the other half unchanged; the caller multiplies by it.
template <class F>
struct TimesFactor {
  F f;
  HWY_INLINE VF32 operator()(VF32 gate, VF32 factor) const { return hn::Mul(f(gate), factor); }
};

// factor * gate if the gate exceeds the threshold, else 0. NaN stays NaN.
struct FatRelu {
  float threshold;
  HWY_INLINE VF32 operator()(VF32 gate, VF32 factor) const {
    return hn::Mul(hn::IfThenZeroElse(hn::Le(gate, hn::Set(F32(), threshold)), gate), factor);
  }
};

// g * sigmoid(alpha g) * (u + beta), where g is the gate, limited from above, and u is the factor,
// limited to [-limit, limit]. NaN stays NaN.
template <typename T>
struct ClampedSilu {
  float limit, alpha, beta;
  HWY_INLINE VF32 operator()(VF32 gate, VF32 factor) const {
    const F32 d;
    const VF32 high = hn::Set(d, limit), low = hn::Set(d, -limit);
    const VF32 g = ClampToMax(gate, high), u = ClampToMin(ClampToMax(factor, high), low);
    return hn::Mul(MultiplyBySigmoid<T>(g, hn::Mul(g, hn::Set(d, alpha))),
                   hn::Add(u, hn::Set(d, beta)));
  }
};

// Joins two rows by a gate.
template <typename T, class F>
struct GatedHalves {
  static constexpr bool kSplit = kSplits<T>;
  const T* HWY_RESTRICT gate;
  const T* HWY_RESTRICT factor;
  F f;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    VF32 factor0, factor1;
    LoadSplit(gate + i, v0, v1);
    LoadSplit(factor + i, factor0, factor1);
    v0 = f(v0, factor0);
    v1 = f(v1, factor1);
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const {
    return f(LoadTail(gate + i, n), LoadTail(factor + i, n));
  }
};

// Joins the gates and factors that alternate in one row.
template <typename T, class F>
struct GatedPairs {
  static constexpr bool kSplit = false;
  const T* HWY_RESTRICT x;
  F f;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    const size_t lanes = hn::Lanes(F32());
    VF32 factor0, factor1;
    LoadPairs(x + 2 * i, v0, factor0);
    LoadPairs(x + 2 * (i + lanes), v1, factor1);
    v0 = f(v0, factor0);
    v1 = f(v1, factor1);
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const {
    VF32 gate, factor;
    LoadPairsTail(x + 2 * i, n, gate, factor);
    return f(gate, factor);
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ACTIVATION_ACTIVATION_INL_H_
