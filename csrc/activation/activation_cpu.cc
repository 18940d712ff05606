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
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// 1 / (1 + exp(-x)). The exponential is of -|x|, so nothing overflows.
HWY_INLINE VF32 Sigmoid(VF32 x) {
  const F32 d;
  const VF32 one = hn::Set(d, 1.0f);
  const VF32 e = hn::Exp(d, hn::Neg(hn::Abs(x)));
  const VF32 numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one);
  return hn::Div(numerator, hn::Add(one, e));
}

// Phi(x). For the lower tail Phi(-z) = exp(-z^2/2) * R(z), which keeps its relative precision where 1 + erf(x) cancels. R is a polynomial
// of degree 8 in t = 1 / (1 + 0.3 z) without a constant term, fitted to 0 <= z <= 14.6 (beyond that Phi underflows) with the least maximal
// relative error, 1.7e-7, by Lawson's iteration on 400 Chebyshev nodes against 40-digit values of erfc.
HWY_INLINE VF32 NormalDistribution(VF32 x) {
  const F32 d;
  const VF32 one = hn::Set(d, 1.0f);
  const VF32 z = hn::Abs(x);
  const VF32 t = hn::Div(one, hn::MulAdd(hn::Set(d, 0.3f), z, one));
  VF32 r = hn::Set(d, 0.035374343f);
  r = hn::MulAdd(r, t, hn::Set(d, -0.15595332f));
  r = hn::MulAdd(r, t, hn::Set(d, 0.2042048f));
  r = hn::MulAdd(r, t, hn::Set(d, -0.0517118f));
  r = hn::MulAdd(r, t, hn::Set(d, 0.12752248f));
  r = hn::MulAdd(r, t, hn::Set(d, 0.1002268f));
  r = hn::MulAdd(r, t, hn::Set(d, 0.12070408f));
  r = hn::MulAdd(r, t, hn::Set(d, 0.11963253f));
  const VF32 e = hn::Exp(d, hn::Mul(hn::Mul(z, z), hn::Set(d, -0.5f)));
  const VF32 tail = hn::Mul(hn::Mul(r, t), e);
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
}

struct Silu {
  HWY_INLINE VF32 operator()(VF32 x) const { return hn::Mul(x, Sigmoid(x)); }
};

struct Gelu {
  HWY_INLINE VF32 operator()(VF32 x) const { return hn::Mul(x, NormalDistribution(x)); }
};

// (1 + tanh(u)) / 2 is sigmoid(2u).
struct GeluTanh {
  HWY_INLINE VF32 operator()(VF32 x) const {
    const F32 d;
    const VF32 square = hn::Mul(x, x);
    const VF32 factor = hn::MulAdd(square, hn::Set(d, 2 * 0.7978845608f * 0.044715f), hn::Set(d, 2 * 0.7978845608f));
    return hn::Mul(x, Sigmoid(hn::Mul(x, factor)));
  }
};

struct GeluQuick {
  HWY_INLINE VF32 operator()(VF32 x) const { return hn::Mul(x, Sigmoid(hn::Mul(x, hn::Set(F32(), 1.702f)))); }
};

// Elements [begin, end) of the output, counted through all rows.
template <typename T, bool kMul, class F>
HWY_NOINLINE void Range(F f, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  const size_t lanes = hn::Lanes(F32());
  while (begin < end) {
    const int64_t row = begin / out.width;
    const int64_t column = begin % out.width;
    const size_t n = static_cast<size_t>(std::min(end - begin, out.width - column));
    // Not restrict: without kMul the output may be the input itself.
    const T* x = input.Row<T>(row) + column;
    const T* y = x + out.width;
    T* to = out.Row<T>(row) + column;
    size_t i = 0;
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

template <bool kMul, class F>
void ForType(F f, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (out.dtype) {
    case DType::kFloat32:
      return Range<float, kMul>(f, out, input, begin, end);
    case DType::kBFloat16:
      return Range<hwy::bfloat16_t, kMul>(f, out, input, begin, end);
    case DType::kFloat16:
      return Range<hwy::float16_t, kMul>(f, out, input, begin, end);
  }
}

template <bool kMul>
void ForActivation(Activation activation, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (activation) {
    case Activation::kSilu:
      return ForType<kMul>(Silu(), out, input, begin, end);
    case Activation::kGelu:
      return ForType<kMul>(Gelu(), out, input, begin, end);
    case Activation::kGeluTanh:
      return ForType<kMul>(GeluTanh(), out, input, begin, end);
    case Activation::kGeluQuick:
      return ForType<kMul>(GeluQuick(), out, input, begin, end);
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
