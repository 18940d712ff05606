// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>

#include "activation/activation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "activation/activation_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// 2^x for x <= 0: 2^n * 2^r with n the nearest integer and |r| <= 1/2. 2^r is a polynomial of degree 5 with the constant term 1, fitted
// with the least maximal relative error, 9e-8, by Lawson's iteration on 600 Chebyshev nodes; 2^n goes into the exponent bits. Below -126,
// where float32 has no normal numbers, the result lies between 0 and the smallest of them, and it is 0 from -127 on. NaN gives a number.
//
// Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low bits, so there is no conversion. Highway's own Exp covers all
// numbers and costs twice the instructions; that showed in every activation of 16-bit elements.
HWY_INLINE VF32 Exp2OfNonPositive(VF32 x) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const VF32 shift = hn::Set(d, 12582912.0f);
  x = hn::Max(x, hn::Set(d, -127.0f));
  const VF32 shifted = hn::Add(x, shift);
  const VF32 r = hn::Sub(x, hn::Sub(shifted, shift));
  VF32 p = hn::Set(d, 0.0013264727f);
  p = hn::MulAdd(p, r, hn::Set(d, 0.009671513f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.055507336f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.24022242f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.693147f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  return hn::BitCast(d, hn::Add(hn::BitCast(du, p), hn::ShiftLeft<23>(hn::BitCast(du, shifted))));
}

// a / b for b from 1 to about 5. Results of 16 bits do not show the last bits of a quotient: there a refined estimate does, at a third of
// the time of a division.
template <typename T>
HWY_INLINE VF32 Quotient(VF32 a, VF32 b) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return hn::Div(a, b);
  } else {
    const VF32 estimate = hn::ApproximateReciprocal(b);
    return hn::Mul(a, hn::Mul(estimate, hn::NegMulAdd(b, estimate, hn::Set(F32(), 2.0f))));
  }
}

// x * sigmoid(y), for y of the same sign as x. The exponential is of -|y|, so nothing overflows.
template <typename T>
HWY_INLINE VF32 TimesSigmoid(VF32 x, VF32 y) {
  const F32 d;
  const VF32 e = Exp2OfNonPositive(hn::Mul(hn::Abs(y), hn::Set(d, -1.44269504f)));
  const VF32 numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Mul(x, e), x);
  return Quotient<T>(numerator, hn::Add(hn::Set(d, 1.0f), e));
}

template <typename T>
struct Silu {
  HWY_INLINE VF32 operator()(VF32 x) const { return TimesSigmoid<T>(x, x); }
};

template <typename T>
struct GeluQuick {
  HWY_INLINE VF32 operator()(VF32 x) const { return TimesSigmoid<T>(x, hn::Mul(x, hn::Set(F32(), 1.702f))); }
};

// (1 + tanh(u)) / 2 is sigmoid(2u).
template <typename T>
struct GeluTanh {
  HWY_INLINE VF32 operator()(VF32 x) const {
    const F32 d;
    const VF32 square = hn::Mul(x, x);
    const VF32 factor = hn::MulAdd(square, hn::Set(d, 2 * 0.7978845608f * 0.044715f), hn::Set(d, 2 * 0.7978845608f));
    return TimesSigmoid<T>(x, hn::Mul(x, factor));
  }
};

// x * Phi(x). For the lower tail Phi(-z) = exp(-z^2/2) * R(z), which keeps its relative precision where 1 + erf(x) cancels. R is a
// polynomial of degree 8 in t = 1 / (1 + 0.3 z) without a constant term, fitted to 0 <= z <= 14.6 (beyond that Phi underflows) with the
// least maximal relative error, 1.7e-7, by Lawson's iteration on 400 Chebyshev nodes against 40-digit values of erfc.
template <typename T>
struct Gelu {
  HWY_INLINE VF32 operator()(VF32 x) const {
    const F32 d;
    const VF32 one = hn::Set(d, 1.0f);
    // Phi(-14.6) is 0 in float32; up to there the quotient below has a denominator of at most 5.4.
    const VF32 z = hn::Min(hn::Abs(x), hn::Set(d, 14.6f));
    const VF32 t = Quotient<T>(one, hn::MulAdd(hn::Set(d, 0.3f), z, one));
    VF32 r = hn::Set(d, 0.035374343f);
    r = hn::MulAdd(r, t, hn::Set(d, -0.15595332f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.2042048f));
    r = hn::MulAdd(r, t, hn::Set(d, -0.0517118f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.12752248f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.1002268f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.12070408f));
    r = hn::MulAdd(r, t, hn::Set(d, 0.11963253f));
    const VF32 e = Exp2OfNonPositive(hn::Mul(hn::Mul(z, z), hn::Set(d, -0.5f * 1.44269504f)));
    const VF32 tail = hn::Mul(hn::Mul(r, t), e);
    return hn::Mul(x, hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail)));
  }
};

// Elements [begin, end) of the output, counted through all rows.
template <template <typename> class F, typename T, bool kMul>
HWY_NOINLINE void Range(const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  const size_t lanes = hn::Lanes(F32());
  const F<T> f;
  while (begin < end) {
    const int64_t row = begin / out.width;
    const int64_t column = begin % out.width;
    const size_t n = static_cast<size_t>(std::min(end - begin, out.width - column));
    // Not restrict: without kMul the output may be the input itself.
    const T* x = input.Row<T>(row) + column;
    const T* y = x + out.width;
    T* to = out.Row<T>(row) + column;
    size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      VF32 v0 = f(Load(x + i)), v1 = f(Load(x + i + lanes));
      if constexpr (kMul) {
        v0 = hn::Mul(v0, Load(y + i));
        v1 = hn::Mul(v1, Load(y + i + lanes));
      }
      StoreTwo(v0, v1, to + i);
    }
    for (; i + lanes <= n; i += lanes) {
      VF32 v = f(Load(x + i));
      if constexpr (kMul) v = hn::Mul(v, Load(y + i));
      Store(v, to + i);
    }
    if (i < n) {
      VF32 v = f(LoadTail(x + i, n - i));
      if constexpr (kMul) v = hn::Mul(v, LoadTail(y + i, n - i));
      StoreTail(v, to + i, n - i);
    }
    begin += static_cast<int64_t>(n);
  }
}

template <template <typename> class F, bool kMul>
void ForType(const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (out.dtype) {
    case DType::kFloat32:
      return Range<F, float, kMul>(out, input, begin, end);
    case DType::kBFloat16:
      return Range<F, hwy::bfloat16_t, kMul>(out, input, begin, end);
    case DType::kFloat16:
      return Range<F, hwy::float16_t, kMul>(out, input, begin, end);
  }
}

template <bool kMul>
void ForActivation(Activation activation, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (activation) {
    case Activation::kSilu:
      return ForType<Silu, kMul>(out, input, begin, end);
    case Activation::kGelu:
      return ForType<Gelu, kMul>(out, input, begin, end);
    case Activation::kGeluTanh:
      return ForType<GeluTanh, kMul>(out, input, begin, end);
    case Activation::kGeluQuick:
      return ForType<GeluQuick, kMul>(out, input, begin, end);
  }
}

void ActivateRange(Activation activation, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  ForActivation<false>(activation, out, input, begin, end);
}

void ActivateAndMulRange(Activation activation, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  ForActivation<true>(activation, out, input, begin, end);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(ActivateRange);
HWY_EXPORT(ActivateAndMulRange);

void Activate(Activation activation, const Rows& out, const Rows& input) {
  auto& function = VLLM_CPU_DISPATCH(ActivateRange);
  ParallelFor(out.count * out.width, 1, [&](int64_t begin, int64_t end) { function(activation, out, input, begin, end); });
}

void ActivateAndMul(Activation activation, const Rows& out, const Rows& input) {
  auto& function = VLLM_CPU_DISPATCH(ActivateAndMulRange);
  ParallelFor(out.count * out.width, 1, [&](int64_t begin, int64_t end) { function(activation, out, input, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
