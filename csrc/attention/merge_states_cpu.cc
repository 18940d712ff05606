// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "attention/merge_states.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/merge_states_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/reduce-inl.h"
#include "core/span-inl.h"
#include "core/with_type-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// The share of each side in the result.
struct Shares {
  float prefix;
  float suffix;
  float lse;
};

HWY_INLINE Shares ComputeShares(float prefix, float suffix) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  if (std::isinf(prefix)) prefix = kNone;
  if (std::isinf(suffix)) suffix = kNone;
  if (prefix == kNone && suffix == kNone) return {0.0f, 0.0f, kNone};
  // If either number is NaN, its exponential is NaN, and so are all three results, regardless of
  // the maximum. Which side is larger is effectively random: a branch instead of one maxss makes
  // merging rows of 128 elements take up to 1.3 times as long.
  const float larger = LargerNumber(prefix, suffix);
  const float a = std::exp(prefix - larger), b = std::exp(suffix - larger);
  return {a / (a + b), b / (a + b), larger + std::log(a + b)};
}

// Two rows, each times its share, as a source of numbers (core/span-inl.h).
template <typename T>
struct WeightedSum {
  static constexpr bool kSplit = kSplits<T>;
  const T* prefix;  // not restrict: the result may be in the same place
  const T* suffix;
  float a, b;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    const VF32 of_prefix = hn::Set(F32(), a), of_suffix = hn::Set(F32(), b);
    VF32 prefix0, prefix1;
    LoadSplit(prefix + i, prefix0, prefix1);
    LoadSplit(suffix + i, v0, v1);
    v0 = hn::MulAdd(prefix0, of_prefix, hn::Mul(v0, of_suffix));
    v1 = hn::MulAdd(prefix1, of_prefix, hn::Mul(v1, of_suffix));
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const {
    return hn::MulAdd(LoadTail(prefix + i, n), hn::Set(F32(), a),
                      hn::Mul(LoadTail(suffix + i, n), hn::Set(F32(), b)));
  }
};

// Returns NaN in the form that RoundUpperHalf requires, regardless of the payload of an input lse.
HWY_INLINE float NormalizeNan(float share) {
  return std::isnan(share) ? std::numeric_limits<float>::quiet_NaN() : share;
}

template <typename T>
HWY_INLINE void MergeRow(const T* prefix, const T* suffix, T* to, size_t width,
                         const Shares& shares, bool stream) {
  const size_t lanes = hn::Lanes(F32());
  const float a = NormalizeNan(shares.prefix), b = NormalizeNan(shares.suffix);
  // A side with a share of zero is not read, because its memory may hold NaN.
  if (a == 0.0f && b == 0.0f) {
    for (size_t i = 0; i < width; i += lanes)
      StoreTail(hn::Zero(F32()), to + i, HWY_MIN(lanes, width - i));
  } else if (a == 0.0f) {
    WriteSpan(Mapped(suffix, Times{b}), to, width, stream);
  } else if (b == 0.0f) {
    WriteSpan(Mapped(prefix, Times{a}), to, width, stream);
  } else {
    WriteSpan(WeightedSum<T>{prefix, suffix, a, b}, to, width, stream);
  }
}

template <typename T>
HWY_NOINLINE void MergeTokens(const MergeStates& merge, int64_t begin, int64_t end) {
  const Rows& output = merge.output.tokens;
  const size_t width = static_cast<size_t>(output.width);
  const bool stream = ShouldStream(output.count * merge.output.heads * output.width *
                                   static_cast<int64_t>(sizeof(T)));
  for (int64_t row = begin; row < end; ++row) {
    const int64_t token = row / merge.output.heads, h = row % merge.output.heads;
    const float suffix_lse = merge.suffix_lse[h * merge.suffix_lse_stride + token];
    Shares shares{0.0f, 1.0f, suffix_lse};
    if (token < merge.merged_tokens)
      shares = ComputeShares(merge.prefix_lse[h * merge.prefix_lse_stride + token], suffix_lse);
    MergeRow<T>(merge.prefix.Head<T>(token, h), merge.suffix.Head<T>(token, h),
                merge.output.Head<T>(token, h), width, shares, stream);
    if (merge.output_lse != nullptr)
      merge.output_lse[h * merge.output_lse_stride + token] = shares.lse;
  }
  if (stream) hwy::FlushStream();
}

void MergeRange(const MergeStates& merge, int64_t begin, int64_t end) {
  WithType(merge.output.tokens.dtype,
           [&](auto element) HWY_ATTR { MergeTokens<decltype(element)>(merge, begin, end); });
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
