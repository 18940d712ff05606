// SPDX-License-Identifier: Apache-2.0
// Activation functions and gates on vectors of float32; T is the element type of the result, whose
// precision suffices. Compiled once for each target.
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

// a / b for b from 1 to about 5. Results of 16 bits do not show the last bits of a quotient: there
// a refined estimate does, at a third of the time of a division.
template <typename T>
HWY_INLINE VF32 Divide(VF32 a, VF32 b) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return hn::Div(a, b);
  } else {
    const VF32 estimate = hn::ApproximateReciprocal(b);
    return hn::Mul(a, hn::Mul(estimate, hn::NegMulAdd(b, estimate, hn::Set(F32(), 2.0f))));
  }
}

// x * sigmoid(y). The exponential is of -|y|, so nothing overflows.
template <typename T>
HWY_INLINE VF32 TimesSigmoid(VF32 x, VF32 y) {
  const F32 d;
  const VF32 e = Exp2OfNonPositive<T>(hn::Mul(hn::Abs(y), hn::Set(d, -kLog2E)));
  const VF32 numerator = hn::IfNegativeThenElse(y, hn::Mul(x, e), x);
  return Divide<T>(numerator, hn::Add(hn::Set(d, 1.0f), e));
}

template <typename T>
struct Silu {
  HWY_INLINE VF32 operator()(VF32 x) const { return TimesSigmoid<T>(x, x); }
};

template <typename T>
struct GeluQuick {
  HWY_INLINE VF32 operator()(VF32 x) const {
    return TimesSigmoid<T>(x, hn::Mul(x, hn::Set(F32(), 1.702f)));
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
    return TimesSigmoid<T>(x, hn::Mul(x, factor));
  }
};

// x * Phi(x). For the lower tail Phi(-z) = exp(-z^2/2) * R(z), which keeps its relative precision
// where 1 + erf(x) cancels. R is a polynomial of degree 8 in t = 1 / (1 + 0.3 z) without a constant
// term, fitted to 0 <= z <= 14.6 (beyond that Phi underflows) with the least maximal relative
// error, 1.7e-7, by Lawson's iteration on 400 Chebyshev nodes against 40-digit values of erfc.
template <typename T>
struct Gelu {
  HWY_INLINE VF32 operator()(VF32 x) const {
    const F32 d;
    const VF32 one = hn::Set(d, 1.0f);
    // Phi(-14.6) is 0 in float32; up to there the quotient below has a denominator of at most 5.4.
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

// A gate that multiplies by the other half as it is.
template <class F>
struct TimesFactor {
  F f;
  HWY_INLINE VF32 operator()(VF32 gate, VF32 factor) const { return hn::Mul(f(gate), factor); }
};

// The gate, or zero up to the threshold, times the factor. NaN stays NaN.
struct FatRelu {
  float threshold;
  HWY_INLINE VF32 operator()(VF32 gate, VF32 factor) const {
    return hn::Mul(hn::IfThenZeroElse(hn::Le(gate, hn::Set(F32(), threshold)), gate), factor);
  }
};

// With g the gate up to the limit, and u the factor between -limit and limit: g * sigmoid(alpha g)
// * (u + beta). NaN stays NaN.
template <typename T>
struct ClampedSilu {
  float limit, alpha, beta;
  HWY_INLINE VF32 operator()(VF32 gate, VF32 factor) const {
    const F32 d;
    const VF32 high = hn::Set(d, limit), low = hn::Set(d, -limit);
    const VF32 g = AtMost(gate, high), u = AtLeast(AtMost(factor, high), low);
    return hn::Mul(TimesSigmoid<T>(g, hn::Mul(g, hn::Set(d, alpha))), hn::Add(u, hn::Set(d, beta)));
  }
};

// Two rows, joined by a gate.
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

// One row in which gates and factors take turns.
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
