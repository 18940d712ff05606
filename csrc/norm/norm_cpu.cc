// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>

#include "norm/norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm/norm_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/stream-inl.h"
#include "norm/norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// to = from * scale * weight, written past the caches where `stream` says so: `to` is then aligned for it and not `from`.
template <typename T, bool kWeight>
HWY_INLINE void Normalize(const T* from, T* to, const T* HWY_RESTRICT weight, size_t width, float scale, bool stream) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 factor = hn::Set(F32(), scale);
  size_t i = 0;
  for (; i + 2 * lanes <= width; i += 2 * lanes) {
    VF32 v0 = hn::Mul(Load(from + i), factor), v1 = hn::Mul(Load(from + i + lanes), factor);
    if constexpr (kWeight) {
      v0 = hn::Mul(v0, Load(weight + i));
      v1 = hn::Mul(v1, Load(weight + i + lanes));
    }
    if (stream) {
      StreamTwo(v0, v1, to + i);
    } else {
      StoreTwo(v0, v1, to + i);
    }
  }
  for (; i + lanes <= width; i += lanes) {
    VF32 v = hn::Mul(Load(from + i), factor);
    if constexpr (kWeight) v = hn::Mul(v, Load(weight + i));
    Store(v, to + i);
  }
  if (i < width) {
    VF32 v = hn::Mul(LoadTail(from + i, width - i), factor);
    if constexpr (kWeight) v = hn::Mul(v, LoadTail(weight + i, width - i));
    StoreTail(v, to + i, width - i);
  }
}

template <typename T>
HWY_INLINE void Normalize(const T* from, T* to, const T* weight, size_t width, float scale, bool stream = false) {
  if (weight == nullptr) {
    Normalize<T, false>(from, to, weight, width, scale, stream);
  } else {
    Normalize<T, true>(from, to, weight, width, scale, stream);
  }
}

template <typename T>
HWY_NOINLINE void RmsNormRows(const Rows& out, const Rows& input, const T* weight, float epsilon, int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  const bool stream = out.data != input.data && WorthStreaming(out.count * out.width * static_cast<int64_t>(sizeof(T)));
  for (int64_t row = begin; row < end; ++row) {
    const T* from = input.Row<T>(row);
    T* to = out.Row<T>(row);
    Normalize(from, to, weight, width, NormFactor(from, width, epsilon), stream && StreamAligned(to));
  }
  if (stream) hwy::FlushStream();
}

template <typename T>
HWY_NOINLINE void FusedAddRmsNormRows(const Rows& input, const Rows& residual, const T* weight, float epsilon, int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    T* x = input.Row<T>(row);
    T* r = residual.Row<T>(row);
    const float factor = AddAndNormFactor<T>(x, r, width, epsilon);
    Normalize<T>(r, x, weight, width, factor);
  }
}

void RmsNormRange(const Rows& out, const Rows& input, const void* weight, float epsilon, int64_t begin, int64_t end) {
  switch (input.dtype) {
    case DType::kFloat32:
      return RmsNormRows(out, input, static_cast<const float*>(weight), epsilon, begin, end);
    case DType::kBFloat16:
      return RmsNormRows(out, input, static_cast<const hwy::bfloat16_t*>(weight), epsilon, begin, end);
    case DType::kFloat16:
      return RmsNormRows(out, input, static_cast<const hwy::float16_t*>(weight), epsilon, begin, end);
  }
}

void FusedAddRmsNormRange(const Rows& input, const Rows& residual, const void* weight, float epsilon, int64_t begin, int64_t end) {
  switch (input.dtype) {
    case DType::kFloat32:
      return FusedAddRmsNormRows(input, residual, static_cast<const float*>(weight), epsilon, begin, end);
    case DType::kBFloat16:
      return FusedAddRmsNormRows(input, residual, static_cast<const hwy::bfloat16_t*>(weight), epsilon, begin, end);
    case DType::kFloat16:
      return FusedAddRmsNormRows(input, residual, static_cast<const hwy::float16_t*>(weight), epsilon, begin, end);
  }
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

void RmsNorm(const Rows& out, const Rows& input, const void* weight, float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(RmsNormRange);
  ParallelFor(input.count, input.width, [&](int64_t begin, int64_t end) { function(out, input, weight, epsilon, begin, end); });
}

void FusedAddRmsNorm(const Rows& input, const Rows& residual, const void* weight, float epsilon) {
  auto& function = VLLM_CPU_DISPATCH(FusedAddRmsNormRange);
  ParallelFor(input.count, input.width, [&](int64_t begin, int64_t end) { function(input, residual, weight, epsilon, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
