// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>
#include <limits>

#include "norm/norm_quant.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm/norm_quant_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "norm/norm-inl.h"
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// A row times a factor times a weight, changed by a function.
template <typename T, class F>
struct ChangedRow {
  static constexpr bool kSplit = kSplits<T>;
  NormedRow<T, true> row;
  F f;
  HWY_INLINE void Two(size_t i, VF32& v0, VF32& v1) const {
    row.Two(i, v0, v1);
    v0 = f(v0);
    v1 = f(v1);
  }
  HWY_INLINE VF32 Tail(size_t i, size_t n) const { return f(row.Tail(i, n)); }
};

// The largest magnitude among the n numbers of a source, NaN left out.
template <class Source>
HWY_INLINE float Largest(const Source& source, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  VF32 largest0 = hn::Zero(d), largest1 = largest0;
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    VF32 v0, v1;
    source.Two(i, v0, v1);
    largest0 = LargerNumber(hn::Abs(v0), largest0);
    largest1 = LargerNumber(hn::Abs(v1), largest1);
  }
  for (; i < n; i += lanes) largest0 = LargerNumber(hn::Abs(source.Tail(i, HWY_MIN(lanes, n - i))), largest0);
  return LargestOfNumbers(d, LargerOfNumbers(largest0, largest1));
}

// Prepares a row: adds the residual if there is one. Returns what is to be normalised, and by which factor.
template <typename T>
HWY_INLINE const T* Prepare(const Rows& input, const Rows* residual, int64_t row, float epsilon, float& factor) {
  const size_t width = static_cast<size_t>(input.width);
  const T* x = input.Row<T>(row);
  if (residual == nullptr) {
    factor = NormFactor(x, width, epsilon);
    return x;
  }
  T* sum = residual->Row<T>(row);
  factor = AddAndNormFactor(x, sum, width, epsilon);
  return sum;
}

template <typename T, typename Q>
HWY_NOINLINE void StaticRows(const Rows& out, const Rows& input, const Rows* residual, const T* weight, float scale, float epsilon,
                             int64_t begin, int64_t end) {
  const Times times{1.0f / scale};
  for (int64_t row = begin; row < end; ++row) {
    float factor;
    const T* x = Prepare<T>(input, residual, row, epsilon, factor);
    QuantizeSpan(ChangedRow<T, Times>{{x, weight, factor}, times}, out.Row<Q>(row), static_cast<size_t>(input.width));
  }
}

template <typename T, typename Q>
HWY_NOINLINE void DynamicRows(const Rows& out, const Rows& input, const Rows* residual, const T* weight, float* scales, const float* bound,
                              float epsilon, int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    float factor;
    const T* x = Prepare<T>(input, residual, row, epsilon, factor);
    const float largest = Largest(NormedRow<T, true>{x, weight, factor}, width);
    const float bounded = bound == nullptr ? largest : SmallerNumber(*bound, largest);
    Q* to = out.Row<Q>(row);
    if constexpr (hwy::IsSame<Q, int8_t>()) {
      scales[row] = LargerNumber(bounded / 127.0f, std::numeric_limits<float>::epsilon());
      QuantizeSpan(ChangedRow<T, Times>{{x, weight, factor}, {1.0f / scales[row]}}, to, width);
    } else {
      scales[row] = LargerNumber(bounded / Q::kMax, 1.0f / (Q::kMax * 512.0f));
      WithDivision(scales[row], largest,
                   [&](auto divide) HWY_ATTR { QuantizeSpan(ChangedRow<T, decltype(divide)>{{x, weight, factor}, divide}, to, width); });
    }
  }
}

// Calls f with objects of the element types of input and output.
template <class F>
HWY_INLINE void WithTypes(DType input, QType output, const F& f) {
  const auto with_input = [&](auto element) HWY_ATTR {
    switch (output) {
      case QType::kE4M3:
        return f(element, E4M3());
      case QType::kE5M2:
        return f(element, E5M2());
      case QType::kInt8:
        return f(element, int8_t());
    }
  };
  switch (input) {
    case DType::kFloat32:
      return with_input(float());
    case DType::kBFloat16:
      return with_input(hwy::bfloat16_t());
    case DType::kFloat16:
      return with_input(hwy::float16_t());
  }
}

void StaticRange(const Rows& out, QType type, const Rows& input, const Rows* residual, const void* weight, float scale, float epsilon,
                 int64_t begin, int64_t end) {
  WithTypes(input.dtype, type, [&](auto element, auto code) HWY_ATTR {
    using T = decltype(element);
    if constexpr (!hwy::IsSame<decltype(code), int8_t>()) {
      StaticRows<T, decltype(code)>(out, input, residual, static_cast<const T*>(weight), scale, epsilon, begin, end);
    }
  });
}

void DynamicRange(const Rows& out, QType type, const Rows& input, const Rows* residual, const void* weight, float* scales,
                  const float* bound, float epsilon, int64_t begin, int64_t end) {
  WithTypes(input.dtype, type, [&](auto element, auto code) HWY_ATTR {
    using T = decltype(element);
    DynamicRows<T, decltype(code)>(out, input, residual, static_cast<const T*>(weight), scales, bound, epsilon, begin, end);
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(StaticRange);
HWY_EXPORT(DynamicRange);

void RmsNormStaticFp8Quant(const Rows& out, QType type, const Rows& input, const Rows* residual, const void* weight, const float* scale,
                           float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(StaticRange);
  ParallelFor(input.count, input.width,
              [&](int64_t begin, int64_t end) { function(out, type, input, residual, weight, *scale, epsilon, begin, end); });
}

void RmsNormDynamicQuant(const Rows& out, QType type, const Rows& input, const Rows* residual, const void* weight, float* scales,
                         const float* bound, float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(DynamicRange);
  ParallelFor(input.count, input.width,
              [&](int64_t begin, int64_t end) { function(out, type, input, residual, weight, scales, bound, epsilon, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
