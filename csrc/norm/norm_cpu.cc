// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cmath>
#include <cstdint>

#include "norm/norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm/norm_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "core/stream-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

HWY_INLINE VF32 AddSquare(VF32 v, VF32 sum) { return hn::MulAdd(v, v, sum); }

// 1 / sqrt(mean + epsilon), from four partial sums of squares.
HWY_INLINE float Scale(VF32 sum0, VF32 sum1, VF32 sum2, VF32 sum3, size_t width, float epsilon) {
  const VF32 total = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  return 1.0f / std::sqrt(hn::ReduceSum(F32(), total) / static_cast<float>(width) + epsilon);
}

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
  const size_t lanes = hn::Lanes(F32());
  const size_t width = static_cast<size_t>(input.width);
  const bool stream = out.data != input.data && WorthStreaming(out.count * out.width * static_cast<int64_t>(sizeof(T)));
  for (int64_t row = begin; row < end; ++row) {
    const T* from = input.Row<T>(row);
    // Four sums, so that one addition need not wait for the last. FusedAddRmsNormRows adds in the same order: its results are the same
    // bits.
    VF32 sum0 = hn::Zero(F32()), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    size_t i = 0;
    for (; i + 4 * lanes <= width; i += 4 * lanes) {
      sum0 = AddSquare(Load(from + i), sum0);
      sum1 = AddSquare(Load(from + i + lanes), sum1);
      sum2 = AddSquare(Load(from + i + 2 * lanes), sum2);
      sum3 = AddSquare(Load(from + i + 3 * lanes), sum3);
    }
    for (; i < width; i += lanes) sum0 = AddSquare(LoadTail(from + i, HWY_MIN(lanes, width - i)), sum0);
    T* to = out.Row<T>(row);
    Normalize(from, to, weight, width, Scale(sum0, sum1, sum2, sum3, width, epsilon), stream && StreamAligned(to));
  }
  if (stream) hwy::FlushStream();
}

// Adds two vectors in place. Returns the sums as they are rounded and stored.
template <typename T>
HWY_INLINE void AddTwo(const T* HWY_RESTRICT input, T* HWY_RESTRICT residual, VF32& sum0, VF32& sum1) {
  const size_t lanes = hn::Lanes(F32());
  sum0 = hn::Add(Load(input), Load(residual));
  sum1 = hn::Add(Load(input + lanes), Load(residual + lanes));
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    const hn::Repartition<T, F32> dt;
    const auto rounded = hn::OrderedDemote2To(dt, sum0, sum1);
    hn::StoreU(rounded, dt, residual);
    sum0 = hn::PromoteLowerTo(F32(), rounded);
    sum1 = hn::PromoteUpperTo(F32(), rounded);
  } else {
    sum0 = RoundTo<T>(sum0);
    sum1 = RoundTo<T>(sum1);
    StoreTwo(sum0, sum1, residual);
  }
}

template <typename T>
HWY_NOINLINE void FusedAddRmsNormRows(const Rows& input, const Rows& residual, const T* weight, float epsilon, int64_t begin, int64_t end) {
  const size_t lanes = hn::Lanes(F32());
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    T* x = input.Row<T>(row);
    T* r = residual.Row<T>(row);
    VF32 sum0 = hn::Zero(F32()), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    size_t i = 0;
    for (; i + 4 * lanes <= width; i += 4 * lanes) {
      VF32 v0, v1, v2, v3;
      AddTwo(x + i, r + i, v0, v1);
      AddTwo(x + i + 2 * lanes, r + i + 2 * lanes, v2, v3);
      sum0 = AddSquare(v0, sum0);
      sum1 = AddSquare(v1, sum1);
      sum2 = AddSquare(v2, sum2);
      sum3 = AddSquare(v3, sum3);
    }
    for (; i < width; i += lanes) {
      const size_t n = HWY_MIN(lanes, width - i);
      const VF32 sum = RoundTo<T>(hn::Add(LoadTail(x + i, n), LoadTail(r + i, n)));
      StoreTail(sum, r + i, n);
      sum0 = AddSquare(sum, sum0);
    }
    Normalize<T>(r, x, weight, width, Scale(sum0, sum1, sum2, sum3, width, epsilon));
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
