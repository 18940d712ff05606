// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>

#include "norm/qk_norm_rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm/qk_norm_rope_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "norm/norm-inl.h"
#include "rotary/rotary-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Processes query and key heads [begin, end), numbered across tokens. `angles` is scratch memory
// for rotary_dim floats.
template <typename T, bool kNeox>
HWY_NOINLINE void NormRopeHeads(const Rows& qkv, const Rows& positions, const QkNormRope& how,
                                int64_t begin, int64_t end, float* angles) {
  const int64_t heads = how.query_heads + how.key_heads;
  const size_t size = static_cast<size_t>(how.head_size);
  const size_t rotary = static_cast<size_t>(how.cache.rotary_dim), half = rotary / 2;
  int64_t angles_of = -1;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t token = index / heads, head = index % heads;
    if (token != angles_of) {
      WidenRow<T, kNeox>(how.cache, *positions.Row<const int64_t>(token), false, angles);
      angles_of = token;
    }
    T* x = qkv.Row<T>(token) + head * how.head_size;
    const T* weight =
        static_cast<const T*>(head < how.query_heads ? how.query_weight : how.key_weight);
    const float factor = ComputeNormFactor(x, size, how.epsilon);
    RotateHead<T, kNeox>(NormedRow<T, true>{x, weight, factor}, x, angles, angles + half, half);
    WriteSpan(NormedRow<T, true>{x + rotary, weight + rotary, factor}, x + rotary, size - rotary);
  }
}

void NormRopeRange(const Rows& qkv, const Rows& positions, const QkNormRope& how, int64_t begin,
                   int64_t end, float* angles) {
  WithType(qkv.dtype, [&](auto element) HWY_ATTR {
    if (how.neox) {
      NormRopeHeads<decltype(element), true>(qkv, positions, how, begin, end, angles);
    } else {
      NormRopeHeads<decltype(element), false>(qkv, positions, how, begin, end, angles);
    }
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

HWY_EXPORT(NormRopeRange);

void NormalizeAndRotateHeads(const Rows& qkv, const Rows& positions, const QkNormRope& how) {
  CheckPositions("fused_qk_norm_rope", "position_ids", positions, how.cache);
  auto& function = VLLM_CPU_DISPATCH(NormRopeRange);
  ParallelFor(qkv.count * (how.query_heads + how.key_heads), how.head_size,
              [&](int64_t begin, int64_t end) {
                // At least one element, because hwy reports an empty allocation as a failure.
                const auto angles = hwy::AllocateAligned<float>(
                    static_cast<size_t>(std::max<int64_t>(1, how.cache.rotary_dim)));
                function(qkv, positions, how, begin, end, angles.get());
              });
}

}  // namespace vllm
#endif  // HWY_ONCE
