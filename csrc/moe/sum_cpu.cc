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

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Elements [begin, end) of the output, counted through all rows.
template <typename T>
HWY_NOINLINE void SumElements(const Rows& out, const Rows& input, int64_t topk, const uint8_t* taken, int64_t begin, int64_t end) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  std::vector<const T*> rows(static_cast<size_t>(topk));
  while (begin < end) {
    const int64_t token = begin / out.width;
    const int64_t column = begin % out.width;
    const size_t n = static_cast<size_t>(std::min(end - begin, out.width - column));
    size_t used = 0;
    for (int64_t row = token * topk; row < (token + 1) * topk; ++row) {
      if (taken == nullptr || taken[row] != 0) rows[used++] = input.Row<T>(row) + column;
    }
    T* to = out.Row<T>(token) + column;
    size_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
      VF32 v0 = hn::Zero(d), v1 = v0, v2 = v0, v3 = v0;
      for (size_t k = 0; k < used; ++k) {
        const T* from = rows[k] + i;
        v0 = hn::Add(v0, Load(from));
        v1 = hn::Add(v1, Load(from + lanes));
        v2 = hn::Add(v2, Load(from + 2 * lanes));
        v3 = hn::Add(v3, Load(from + 3 * lanes));
      }
      StoreTwo(v0, v1, to + i);
      StoreTwo(v2, v3, to + i + 2 * lanes);
    }
    for (; i < n; i += lanes) {
      const size_t part = HWY_MIN(lanes, n - i);
      VF32 v = hn::Zero(d);
      for (size_t k = 0; k < used; ++k) v = hn::Add(v, LoadTail(rows[k] + i, part));
      StoreTail(v, to + i, part);
    }
    begin += static_cast<int64_t>(n);
  }
}

void SumRange(const Rows& out, const Rows& input, int64_t topk, const uint8_t* taken, int64_t begin, int64_t end) {
  switch (out.dtype) {
    case DType::kFloat32:
      return SumElements<float>(out, input, topk, taken, begin, end);
    case DType::kBFloat16:
      return SumElements<hwy::bfloat16_t>(out, input, topk, taken, begin, end);
    case DType::kFloat16:
      return SumElements<hwy::float16_t>(out, input, topk, taken, begin, end);
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

HWY_EXPORT(SumRange);

void SumChoices(const Rows& out, const Rows& input, int64_t topk, const std::vector<uint8_t>& taken) {
  auto& function = VLLM_CPU_DISPATCH(SumRange);
  const uint8_t* bytes = taken.empty() ? nullptr : taken.data();
  ParallelFor(out.count * out.width, topk, [&](int64_t begin, int64_t end) { function(out, input, topk, bytes, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
