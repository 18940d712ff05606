// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "attention/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/merge_states_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// How much of each side goes into the result.
struct Shares {
  float prefix;
  float suffix;
  float lse;
};

HWY_INLINE Shares SharesOf(float prefix, float suffix) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  if (std::isinf(prefix)) prefix = kNone;
  if (std::isinf(suffix)) suffix = kNone;
  const float max = HWY_MAX(prefix, suffix);
  if (max == kNone) return {0.0f, 0.0f, kNone};
  const float a = std::exp(prefix - max), b = std::exp(suffix - max);
  return {a / (a + b), b / (a + b), max + std::log(a + b)};
}

// A side without a share is not read as a factor: what it holds may not be a number.
template <typename T>
HWY_INLINE VF32 Merged(const T* prefix, const T* suffix, size_t i, size_t n, VF32 a, VF32 b, bool both) {
  const VF32 share = hn::Mul(LoadTail(suffix + i, n), b);
  return both ? hn::MulAdd(LoadTail(prefix + i, n), a, share) : share;
}

template <typename T>
HWY_INLINE void MergeRow(const T* prefix, const T* suffix, T* to, size_t width, const Shares& shares) {
  const size_t lanes = hn::Lanes(F32());
  const bool both = shares.prefix != 0.0f && shares.suffix != 0.0f;
  const VF32 a = hn::Set(F32(), shares.prefix), b = hn::Set(F32(), both || shares.prefix == 0.0f ? shares.suffix : shares.prefix);
  const T* one = shares.prefix != 0.0f && !both ? prefix : suffix;
  size_t i = 0;
  if (shares.prefix == 0.0f && shares.suffix == 0.0f) {
    for (; i < width; i += lanes) StoreTail(hn::Zero(F32()), to + i, HWY_MIN(lanes, width - i));
    return;
  }
  if (both) {
    for (; i + 2 * lanes <= width; i += 2 * lanes) {
      const VF32 v0 = hn::MulAdd(Load(prefix + i), a, hn::Mul(Load(suffix + i), b));
      const VF32 v1 = hn::MulAdd(Load(prefix + i + lanes), a, hn::Mul(Load(suffix + i + lanes), b));
      StoreTwo(v0, v1, to + i);
    }
  } else {
    for (; i + 2 * lanes <= width; i += 2 * lanes) StoreTwo(hn::Mul(Load(one + i), b), hn::Mul(Load(one + i + lanes), b), to + i);
  }
  for (; i < width; i += lanes) {
    const size_t n = HWY_MIN(lanes, width - i);
    StoreTail(Merged(prefix, one, i, n, a, b, both), to + i, n);
  }
}

template <typename T>
HWY_NOINLINE void MergeTokens(const MergeStates& merge, int64_t begin, int64_t end) {
  const auto head = [](const AttentionHeads& heads, int64_t token, int64_t h) {
    return heads.tokens.Row<T>(token) + h * heads.head_stride;
  };
  const size_t width = static_cast<size_t>(merge.output.tokens.width);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t token = row / merge.output.heads, h = row % merge.output.heads;
    const float suffix_lse = merge.suffix_lse[h * merge.suffix_lse_stride + token];
    Shares shares{0.0f, 1.0f, suffix_lse};
    if (token < merge.merged_tokens) shares = SharesOf(merge.prefix_lse[h * merge.prefix_lse_stride + token], suffix_lse);
    MergeRow<T>(head(merge.prefix, token, h), head(merge.suffix, token, h), head(merge.output, token, h), width, shares);
    if (merge.output_lse != nullptr) merge.output_lse[h * merge.output_lse_stride + token] = shares.lse;
  }
}

void MergeRange(const MergeStates& merge, int64_t begin, int64_t end) {
  switch (merge.output.tokens.dtype) {
    case DType::kFloat32:
      return MergeTokens<float>(merge, begin, end);
    case DType::kBFloat16:
      return MergeTokens<hwy::bfloat16_t>(merge, begin, end);
    case DType::kFloat16:
      return MergeTokens<hwy::float16_t>(merge, begin, end);
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

HWY_EXPORT(MergeRange);

void RunMergeStates(const MergeStates& merge) {
  auto& function = VLLM_CPU_DISPATCH(MergeRange);
  ParallelFor(merge.output.tokens.count * merge.output.heads, merge.output.tokens.width,
              [&](int64_t begin, int64_t end) { function(merge, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
