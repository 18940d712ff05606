// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>
#include <limits>

#include "norm/norm_quant.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm/norm_quant_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "norm/norm-inl.h"
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// A row times a factor times a weight, transformed by a function.
template <typename T, class F>
struct ChangedRow {
  static constexpr bool kSplit = kSplits<T>;
  NormedRow<T, true> row;
  F f;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    row.ReadTwo(i, v0, v1);
    v0 = f(v0);
    v1 = f(v1);
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const { return f(row.ReadTail(i, n)); }
};

// Returns the largest magnitude among the n numbers of a source, ignoring NaN.
template <class Source>
HWY_INLINE float FindLargest(const Source& source, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  VF32 largest0 = hn::Zero(d), largest1 = largest0;
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    VF32 v0, v1;
    source.ReadTwo(i, v0, v1);
    largest0 = LargerNumber(hn::Abs(v0), largest0);
    largest1 = LargerNumber(hn::Abs(v1), largest1);
  }
  for (; i < n; i += lanes)
    largest0 = LargerNumber(hn::Abs(source.ReadTail(i, HWY_MIN(lanes, n - i))), largest0);
  return LargestOfNumbers(d, LargerOfNumbers(largest0, largest1));
}

// Prepares a row: adds the residual if there is one. Returns the row to normalise and its factor.
template <typename T>
HWY_INLINE const T* PrepareRow(const Rows& input, const Rows* residual, int64_t row, float epsilon,
                               float& factor) {
  const size_t width = static_cast<size_t>(input.width);
  const T* x = input.Row<T>(row);
  if (residual == nullptr) {
    factor = ComputeNormFactor(x, width, epsilon);
    return x;
  }
  T* sum = residual->Row<T>(row);
  factor = AddAndComputeNormFactor(x, sum, width, epsilon);
  return sum;
}

template <typename T, typename Q>
HWY_NOINLINE void QuantizeRowsStatic(const Rows& out, const Rows& input, const Rows* residual,
                                     const T* weight, float scale, float epsilon, int64_t begin,
                                     int64_t end) {
  const Times times{1.0f / scale};
  for (int64_t row = begin; row < end; ++row) {
    float factor;
    const T* x = PrepareRow<T>(input, residual, row, epsilon, factor);
    QuantizeSpan(ChangedRow<T, Times>{{x, weight, factor}, times}, out.Row<Q>(row),
                 static_cast<size_t>(input.width));
  }
}

template <typename T, typename Q>
HWY_NOINLINE void QuantizeRowsDynamic(const Rows& out, const Rows& input, const Rows* residual,
                                      const T* weight, float* scales, const float* bound,
                                      float epsilon, int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    float factor;
    const T* x = PrepareRow<T>(input, residual, row, epsilon, factor);
    const float largest = FindLargest(NormedRow<T, true>{x, weight, factor}, width);
    const float bounded = bound == nullptr ? largest : SmallerNumber(*bound, largest);
    Q* to = out.Row<Q>(row);
    if constexpr (hwy::IsSame<Q, int8_t>()) {
      scales[row] = LargerNumber(bounded / 127.0f, std::numeric_limits<float>::epsilon());
      QuantizeSpan(ChangedRow<T, Times>{{x, weight, factor}, {1.0f / scales[row]}}, to, width);
    } else {
      scales[row] = LargerNumber(bounded / Q::kMax, 1.0f / (Q::kMax * 512.0f));
      WithDivision(scales[row], largest, [&](auto divide) HWY_ATTR {
        QuantizeSpan(ChangedRow<T, decltype(divide)>{{x, weight, factor}, divide}, to, width);
      });
    }
  }
}

void NormQuantStaticRange(const Rows& out, QType type, const Rows& input, const Rows* residual,
                          const void* weight, float scale, float epsilon, int64_t begin,
                          int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    WithFp8Code(type, [&](auto code) HWY_ATTR {
      QuantizeRowsStatic<T, decltype(code)>(out, input, residual, static_cast<const T*>(weight),
                                            scale, epsilon, begin, end);
    });
  });
}

void NormQuantDynamicRange(const Rows& out, QType type, const Rows& input, const Rows* residual,
                           const void* weight, float* scales, const float* bound, float epsilon,
                           int64_t begin, int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    WithCode(type, [&](auto code) HWY_ATTR {
      QuantizeRowsDynamic<T, decltype(code)>(out, input, residual, static_cast<const T*>(weight),
                                             scales, bound, epsilon, begin, end);
    });
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

HWY_EXPORT(NormQuantStaticRange);
HWY_EXPORT(NormQuantDynamicRange);

void NormalizeAndQuantizeStatic(const Rows& out, QType type, const Rows& input,
                                const Rows* residual, const void* weight, const float* scale,
                                float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(NormQuantStaticRange);
  ParallelFor(input.count, input.width, [&](int64_t begin, int64_t end) {
    function(out, type, input, residual, weight, *scale, epsilon, begin, end);
  });
}

void NormalizeAndQuantizeDynamic(const Rows& out, QType type, const Rows& input,
                                 const Rows* residual, const void* weight, float* scales,
                                 const float* bound, float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(NormQuantDynamicRange);
  ParallelFor(input.count, input.width, [&](int64_t begin, int64_t end) {
    function(out, type, input, residual, weight, scales, bound, epsilon, begin, end);
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
