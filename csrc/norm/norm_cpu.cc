// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>

#include "norm/norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm/norm_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "norm/norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// to = from * factor * weight. With `stream`, the stores bypass the caches.
template <typename T>
HWY_INLINE void Normalize(const T* from, T* to, const T* weight, size_t width, float factor,
                          bool stream) {
  if (weight == nullptr) {
    WriteSpan(NormedRow<T, false>{from, weight, factor}, to, width, stream);
  } else {
    WriteSpan(NormedRow<T, true>{from, weight, factor}, to, width, stream);
  }
}

template <typename T>
HWY_NOINLINE void RmsNormRows(const Rows& out, const Rows& input, const T* weight, float epsilon,
                              int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  const bool stream = out.data != input.data && ShouldStream<T>(out);
  for (int64_t row = begin; row < end; ++row) {
    const T* from = input.Row<T>(row);
    T* to = out.Row<T>(row);
    Normalize(from, to, weight, width, ComputeNormFactor(from, width, epsilon), stream);
  }
  if (stream) hwy::FlushStream();
}

template <typename T>
HWY_NOINLINE void FusedAddRmsNormRows(const Rows& input, const Rows& residual, const T* weight,
                                      float epsilon, int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    T* x = input.Row<T>(row);
    T* r = residual.Row<T>(row);
    const float factor = AddAndComputeNormFactor<T>(x, r, width, epsilon);
    Normalize<T>(r, x, weight, width, factor, false);
  }
}

void RmsNormRange(const Rows& out, const Rows& input, const void* weight, float epsilon,
                  int64_t begin, int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    RmsNormRows(out, input, static_cast<const decltype(element)*>(weight), epsilon, begin, end);
  });
}

void FusedAddRmsNormRange(const Rows& input, const Rows& residual, const void* weight,
                          float epsilon, int64_t begin, int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    FusedAddRmsNormRows(input, residual, static_cast<const decltype(element)*>(weight), epsilon,
                        begin, end);
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

HWY_EXPORT(RmsNormRange);
HWY_EXPORT(FusedAddRmsNormRange);

void NormalizeRms(const Rows& out, const Rows& input, const void* weight, float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(RmsNormRange);
  ParallelFor(input.count, input.width, [&](int64_t begin, int64_t end) {
    function(out, input, weight, epsilon, begin, end);
  });
}

void AddAndNormalizeRms(const Rows& input, const Rows& residual, const void* weight,
                        float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(FusedAddRmsNormRange);
  ParallelFor(input.count, input.width, [&](int64_t begin, int64_t end) {
    function(input, residual, weight, epsilon, begin, end);
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
