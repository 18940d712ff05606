// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>
#include <limits>
#include <vector>

#include "moe/routing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "moe/routing_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/reduce-inl.h"
#include "core/simd-inl.h"
#include "core/with_type-inl.h"

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

constexpr float kTaken = -std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();

// Returns the index of the largest of `n` elements, the first of equal ones. There is no NaN among
// them.
HWY_INLINE size_t FindLargest(const float* HWY_RESTRICT x, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF32 lowest = hn::Set(d, kTaken);
  VF32 best = lowest;
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) best = LargerOfNumbers(best, hn::LoadU(d, x + i));
  if (i < n) best = LargerOfNumbers(best, hn::LoadNOr(lowest, d, x + i, n - i));
  const VF32 maximum = hn::Set(d, LargestOfNumbers(d, best));
  for (i = 0; i + lanes <= n; i += lanes) {
    const intptr_t found = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, x + i), maximum));
    if (found >= 0) return i + static_cast<size_t>(found);
  }
  for (; i < n; ++i) {
    if (x[i] == hn::GetLane(maximum)) return i;
  }
  return 0;
}

// Returns the sum of the two largest of `n` elements, or the largest if there is only one.
HWY_INLINE float AddTopTwo(const float* HWY_RESTRICT x, size_t n) {
  float first = kTaken, second = kTaken;
  for (size_t i = 0; i < n; ++i) {
    if (x[i] > first) {
      second = first;
      first = x[i];
    } else if (x[i] > second) {
      second = x[i];
    }
  }
  return n == 1 ? first : first + second;
}

// e^v. NaN stays NaN; Highway's exponential returns 0 for it.
HWY_INLINE VF32 Exp(VF32 v) { return hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(F32(), v)); }

// scores[i] = f(x[i]) for i < n. A softmax over NaN or +infinity returns NaN for all. `scores` has
// room for whole vectors; the elements after the n-th are 0.
template <typename T>
HWY_INLINE void ComputeScores(Scoring scoring, const T* HWY_RESTRICT x, float* HWY_RESTRICT scores,
                              size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  if (scoring == Scoring::kSoftmax) {
    VF32 best = hn::Set(d, kTaken);
    for (size_t i = 0; i < n; i += lanes) {
      const VF32 v = LoadTail(x + i, HWY_MIN(lanes, n - i));
      const VF32 shown = hn::IfThenElse(hn::FirstN(d, n - i), v, hn::Set(d, kTaken));
      hn::StoreU(shown, d, scores + i);
      best = LargerNumber(shown, best);
    }
    const VF32 maximum = hn::Set(d, LargestOfNumbers(d, best));
    VF32 sum = hn::Zero(d);
    for (size_t i = 0; i < n; i += lanes) {
      const VF32 e = Exp(hn::Sub(hn::LoadU(d, scores + i), maximum));
      hn::StoreU(e, d, scores + i);
      sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, n - i), e));
    }
    const VF32 total = hn::Set(d, hn::ReduceSum(d, sum));
    for (size_t i = 0; i < n; i += lanes)
      hn::StoreU(hn::Div(hn::LoadU(d, scores + i), total), d, scores + i);
  } else {
    const VF32 one = hn::Set(d, 1.0f);
    for (size_t i = 0; i < n; i += lanes) {
      VF32 v = LoadTail(x + i, HWY_MIN(lanes, n - i));
      if (scoring == Scoring::kSigmoid) {
        // The exponent is -|v|, so it cannot overflow.
        const VF32 e = Exp(hn::Neg(hn::Abs(v)));
        v = hn::Div(hn::IfThenElse(hn::Lt(v, hn::Zero(d)), e, one), hn::Add(one, e));
      }
      hn::StoreU(v, d, scores + i);
    }
  }
}

// choice[i] = scores[i] + bias[i], or the lowest number where the score is not finite or the sum is
// NaN; non-finite scores become 0. Returns whether any score was finite.
template <typename B>
HWY_INLINE bool AddExpertBias(float* HWY_RESTRICT scores, const B* HWY_RESTRICT bias,
                              float* HWY_RESTRICT choice, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF32 lowest = hn::Set(d, kLowest);
  bool any = false;
  for (size_t i = 0; i < n; i += lanes) {
    const VF32 score = hn::LoadU(d, scores + i);
    const auto usable = hn::And(hn::IsFinite(score), hn::FirstN(d, n - i));
    any = any || !hn::AllFalse(d, usable);
    const VF32 sum =
        bias == nullptr ? score : hn::Add(score, LoadTail(bias + i, HWY_MIN(lanes, n - i)));
    hn::StoreU(hn::IfThenElseZero(usable, score), d, scores + i);
    const auto number = hn::And(usable, hn::Not(hn::IsNaN(sum)));
    hn::StoreU(hn::IfThenElse(number, LargerOfNumbers(sum, lowest), lowest), d, choice + i);
  }
  return any;
}

HWY_INLINE bool AddExpertBias(const Router& router, float* scores, float* choice, size_t n) {
  return WithType(router.bias_dtype, [&](auto element) HWY_ATTR {
    return AddExpertBias(scores, static_cast<const decltype(element)*>(router.bias), choice, n);
  });
}

// Removes from `choice` all experts that are not in one of the kept groups.
HWY_INLINE void KeepGroups(const Router& router, float* HWY_RESTRICT choice, size_t experts,
                           float* HWY_RESTRICT groups) {
  const size_t count = static_cast<size_t>(router.groups);
  const size_t size = experts / count;
  for (size_t g = 0; g < count; ++g)
    groups[g] = LargerNumber(AddTopTwo(choice + g * size, size), kLowest);
  for (int64_t k = 0; k < router.kept_groups; ++k) groups[FindLargest(groups, count)] = kTaken;
  for (size_t g = 0; g < count; ++g) {
    if (groups[g] == kTaken) continue;
    for (size_t i = 0; i < size; ++i) choice[g * size + i] = kTaken;
  }
}

template <typename T, typename Index>
HWY_NOINLINE void RouteRows(const Rows& logits, const Router& router, const Routes& routes,
                            int64_t begin, int64_t end) {
  const size_t n = static_cast<size_t>(logits.width);
  const size_t room = n + hn::Lanes(F32());
  std::vector<float> memory(2 * room + static_cast<size_t>(router.groups));
  float* scores = memory.data();
  float* choice = scores + room;
  float* groups = choice + room;
  for (int64_t row = begin; row < end; ++row) {
    float* weights = routes.weights + row * router.topk;
    Index* experts = static_cast<Index*>(routes.experts) + row * router.topk;
    if (routes.positions != nullptr) {
      for (int64_t k = 0; k < router.topk; ++k) {
        routes.positions[row * router.topk + k] = static_cast<int32_t>(k * logits.count + row);
      }
    }
    if (router.padding != nullptr && router.padding[row] != 0) {
      for (int64_t k = 0; k < router.topk; ++k) {
        weights[k] = 0.0f;
        experts[k] = -1;
      }
      continue;
    }
    ComputeScores(router.scoring, logits.Row<T>(row), scores, n);
    const bool any = AddExpertBias(router, scores, choice, n);
    if (!any && router.scoring != Scoring::kSoftmax && router.groups > 1) {
      // No group is better than another. Like upstream, takes the first experts with equal weights,
      // unscaled.
      for (int64_t k = 0; k < router.topk; ++k) {
        weights[k] = 1.0f / static_cast<float>(router.topk);
        experts[k] = static_cast<Index>(k);
      }
      continue;
    }
    if (router.groups > 1) KeepGroups(router, choice, n, groups);
    float sum = 0.0f;
    for (int64_t k = 0; k < router.topk; ++k) {
      const size_t expert = FindLargest(choice, n);
      choice[expert] = kTaken;
      weights[k] = scores[expert];
      experts[k] = static_cast<Index>(expert);
      sum += scores[expert];
    }
    const float factor = router.renormalize && sum != 0.0f ? router.scale / sum : router.scale;
    for (int64_t k = 0; k < router.topk; ++k) weights[k] *= factor;
  }
}

void RouteRange(const Rows& logits, const Router& router, const Routes& routes, int64_t begin,
                int64_t end) {
  WithType(logits.dtype, [&](auto element) HWY_ATTR {
    if (routes.type == IndexType::kInt64) {
      RouteRows<decltype(element), int64_t>(logits, router, routes, begin, end);
    } else {
      RouteRows<decltype(element), int32_t>(logits, router, routes, begin, end);
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

HWY_EXPORT(RouteRange);

void Route(const Rows& logits, const Router& router, const Routes& routes) {
  auto& function = VLLM_CPU_DISPATCH(RouteRange);
  // One pass over the experts for each choice, and scoring, which is worth about four passes.
  const int64_t work = logits.width * (router.topk + 4);
  ParallelFor(logits.count, work,
              [&](int64_t begin, int64_t end) { function(logits, router, routes, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
