// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "moe/sum.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "moe/sum_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/span-inl.h"
#include "core/with_type-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// The sums of `count` rows, as a source of numbers (core/span-inl.h).
template <typename T>
struct RowSums {
  static constexpr bool kSplit = kSplits<T>;
  const T* const* rows;
  size_t count;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    v0 = v1 = hn::Zero(F32());
    for (size_t k = 0; k < count; ++k) {
      VF32 term0, term1;
      LoadSplit(rows[k] + i, term0, term1);
      v0 = hn::Add(v0, term0);
      v1 = hn::Add(v1, term1);
    }
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const {
    VF32 v = hn::Zero(F32());
    for (size_t k = 0; k < count; ++k) v = hn::Add(v, LoadTail(rows[k] + i, n));
    return v;
  }
};

// Computes elements [begin, end) of the output, numbered across rows.
template <typename T>
HWY_NOINLINE void SumElements(const Rows& out, const Rows& input, int64_t topk,
                              const TakenRoutes& taken, int64_t begin, int64_t end) {
  const bool stream = ShouldStream<T>(out);
  std::vector<const T*> rows(static_cast<size_t>(topk));
  while (begin < end) {
    const int64_t token = begin / out.width;
    const int64_t column = begin % out.width;
    const int64_t n = std::min(end - begin, out.width - column);
    size_t used = 0;
    for (int64_t choice = 0; choice < topk; ++choice) {
      if (taken.HasExpert(token, choice))
        rows[used++] = input.Row<T>(token * topk + choice) + column;
    }
    WriteSpan(RowSums<T>{rows.data(), used}, out.Row<T>(token) + column, static_cast<size_t>(n),
              stream);
    begin += n;
  }
  if (stream) hwy::FlushStream();
}

void SumRange(const Rows& out, const Rows& input, int64_t topk, const TakenRoutes& taken,
              int64_t begin, int64_t end) {
  WithType(out.dtype, [&](auto element) HWY_ATTR {
    SumElements<decltype(element)>(out, input, topk, taken, begin, end);
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

HWY_EXPORT(SumRange);

void SumChoices(const Rows& out, const Rows& input, int64_t topk, const TakenRoutes& taken) {
  auto& function = VLLM_CPU_DISPATCH(SumRange);
  ParallelFor(out.count * out.width, topk,
              [&](int64_t begin, int64_t end) { function(out, input, topk, taken, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
