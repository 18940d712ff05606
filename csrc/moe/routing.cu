// SPDX-License-Identifier: Apache-2.0
#include "moe/routing.h"

#include <cmath>
#include <cfloat>
#include <climits>
#include <cstdint>

#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

// One warp routes a token.
constexpr int kWarps = 4;
constexpr float kTaken = -INFINITY;
constexpr float kLowest = -FLT_MAX;

// The score and choice of every 32nd expert: together, the lanes of a warp hold a table in their
// registers.
template <int kPerLane>
struct InRegisters {
  float scores[kPerLane];
  float choices[kPerLane];

  // Calls f(expert, score, choice) for each expert of the lane, including indices from n on.
  template <class F>
  __device__ __forceinline__ void ForEach(F f) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) f(Lane() + i * kWarp, scores[i], choices[i]);
  }
  // Returns the score of the lane's i-th expert, and removes it in the lane in which `taking` is
  // set.
  __device__ __forceinline__ float TakeScore(int at, bool taking) {
    float score = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (i != at) continue;
      score = scores[i];
      if (taking) choices[i] = kTaken;
    }
    return score;
  }
};

// The same in shared memory, for any number of experts.
struct InShared {
  float* scores;
  float* choices;
  int experts;

  template <class F>
  __device__ __forceinline__ void ForEach(F f) {
    for (int e = Lane(); e < experts; e += kWarp) f(e, scores[e], choices[e]);
  }
  __device__ __forceinline__ float TakeScore(int at, bool taking) {
    const int expert = at * kWarp + Lane();
    if (expert >= experts) return 0.0f;
    if (taking) choices[expert] = kTaken;
    return scores[expert];
  }
};

// Calls f with a pointer to numbers of the type.
template <class F>
__device__ __forceinline__ void WithNumbers(DType dtype, const void* data, int64_t offset, F f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(static_cast<const float*>(data) + offset);
    case DType::kBFloat16:
      return f(static_cast<const Bf16*>(data) + offset);
    case DType::kFloat16:
      return f(static_cast<const Fp16*>(data) + offset);
  }
}

// Computes scores from `row` of the logits.
template <class Table>
__device__ __forceinline__ void SetScores(Table& table, const Rows& logits, int64_t row,
                                          Scoring scoring) {
  const int n = static_cast<int>(logits.width);
  WithNumbers(logits.dtype, logits.data, logits.Offset(row), [&](auto* x) {
    table.ForEach([&](int e, float& score, float&) { score = e < n ? ToFloat(x[e]) : kTaken; });
  });
  if (scoring == Scoring::kSoftmax) {
    float most = kTaken;
    table.ForEach([&](int, float& score, float&) { most = LargerNumber(score, most); });
    most = WarpReduce(most, Max());
    float sum = 0.0f;
    table.ForEach([&](int e, float& score, float&) {
      score = expf(score - most);
      if (e < n) sum += score;
    });
    sum = WarpReduce(sum, Sum());
    table.ForEach([&](int, float& score, float&) { score = score / sum; });
  } else if (scoring == Scoring::kSigmoid) {
    table.ForEach([&](int, float& score, float&) {
      // The exponent is -|x|, so it cannot overflow.
      const float e = expf(-fabsf(score));
      score = (score < 0.0f ? e : 1.0f) / (1.0f + e);
    });
  }
}

// Computes choices from the scores and the bias: the lowest number where the score is not finite or
// the sum is NaN; non-finite scores become 0. Returns whether any score of the lane was finite.
template <class Table>
__device__ __forceinline__ bool SetChoices(Table& table, int n, const Router& router) {
  if (router.bias == nullptr) {
    table.ForEach([&](int, float& score, float& choice) { choice = score; });
  } else {
    WithNumbers(router.bias_dtype, router.bias, 0, [&](auto* bias) {
      table.ForEach([&](int e, float& score, float& choice) {
        choice = e < n ? score + ToFloat(bias[e]) : kTaken;
      });
    });
  }
  bool any = false;
  table.ForEach([&](int e, float& score, float& choice) {
    const bool usable = e < n && std::isfinite(score);
    any = any || usable;
    choice = e >= n                          ? kTaken
             : usable && !std::isnan(choice) ? LargerNumber(choice, kLowest)
                                             : kLowest;
    if (!usable) score = 0.0f;
  });
  return any;
}

// Removes all experts that are not in one of the kept groups. `area` has room for one number for
// each expert and each group.
template <class Table>
__device__ __forceinline__ void KeepGroups(Table& table, int n, const Router& router, float* area) {
  const int groups = static_cast<int>(router.groups), size = n / groups;
  float* worth = area + n;
  table.ForEach([&](int e, float&, float& choice) {
    if (e < n) area[e] = choice;
  });
  SyncWarp();
  for (int group = 0; group < groups; ++group) {
    float first = kTaken, second = kTaken;
    for (int i = Lane(); i < size; i += kWarp) {
      const float x = area[group * size + i];
      second = LargerNumber(SmallerNumber(first, x), second);
      first = LargerNumber(x, first);
    }
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      const float other_first = ShuffleXor(first, mask), other_second = ShuffleXor(second, mask);
      second = LargerNumber(SmallerNumber(first, other_first), LargerNumber(second, other_second));
      first = LargerNumber(first, other_first);
    }
    if (Lane() == 0) worth[group] = LargerNumber(size == 1 ? first : first + second, kLowest);
  }
  SyncWarp();
  for (int group = Lane(); group < groups; group += kWarp) {
    // The group's rank; the lower number comes first if groups are equal.
    int better = 0;
    for (int other = 0; other < groups; ++other) {
      if (worth[other] > worth[group] || (worth[other] == worth[group] && other < group)) ++better;
    }
    if (better < router.kept_groups) continue;
    for (int i = 0; i < size; ++i) area[group * size + i] = kTaken;
  }
  SyncWarp();
  table.ForEach([&](int e, float&, float& choice) {
    if (e < n) choice = area[e];
  });
}

__device__ __forceinline__ void StoreExpert(const Routes& routes, int64_t at, int expert) {
  if (routes.type == IndexType::kInt64) {
    static_cast<int64_t*>(routes.experts)[at] = expert;
  } else {
    static_cast<int32_t*>(routes.experts)[at] = expert;
  }
}

template <bool kGrouped, class Table>
__device__ __forceinline__ void RouteToken(Table& table, const Rows& logits, int64_t row,
                                           const Router& router, const Routes& routes,
                                           float* area) {
  const int n = static_cast<int>(logits.width), topk = static_cast<int>(router.topk);
  const int64_t begin = row * topk;
  if (routes.positions != nullptr) {
    for (int k = Lane(); k < topk; k += kWarp)
      routes.positions[begin + k] = static_cast<int32_t>(k * logits.count + row);
  }
  if (router.padding != nullptr && router.padding[row] != 0) {
    for (int k = Lane(); k < topk; k += kWarp) {
      routes.weights[begin + k] = 0.0f;
      StoreExpert(routes, begin + k, -1);
    }
    return;
  }
  SetScores(table, logits, row, router.scoring);
  const bool any = SetChoices(table, n, router);
  if constexpr (kGrouped) {
    if (Ballot(any) == 0 && router.scoring != Scoring::kSoftmax) {
      // No group is better than another. Like upstream, takes the first experts with equal weights,
      // unscaled.
      for (int k = Lane(); k < topk; k += kWarp) {
        routes.weights[begin + k] = 1.0f / static_cast<float>(topk);
        StoreExpert(routes, begin + k, k);
      }
      return;
    }
    KeepGroups(table, n, router, area);
  }
  float sum = 0.0f, mine = 0.0f;
  for (int k = 0; k < topk; ++k) {
    float best = kTaken;
    int expert = INT_MAX;
    table.ForEach([&](int e, float&, float& choice) {
      if (choice > best) {
        best = choice;
        expert = e;
      }
    });
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      const float other = ShuffleXor(best, mask);
      const int other_expert = ShuffleXor(expert, mask);
      if (other > best || (other == best && other_expert < expert)) {
        best = other;
        expert = other_expert;
      }
    }
    const int owner = expert % kWarp;
    const float score = Shuffle(table.TakeScore(expert / kWarp, Lane() == owner), owner);
    sum += score;
    if (Lane() == k % kWarp) StoreExpert(routes, begin + k, expert);
    if (k < kWarp) {
      if (Lane() == k) mine = score;
    } else if (Lane() == 0) {
      routes.weights[begin + k] = score;
    }
  }
  const float factor = router.renormalize && sum != 0.0f ? router.scale / sum : router.scale;
  if (Lane() < topk) routes.weights[begin + Lane()] = mine * factor;
  if (Lane() == 0) {
    for (int k = kWarp; k < topk; ++k) routes.weights[begin + k] *= factor;
  }
}

// kPerLane = 0: the tables are in shared memory, and a block is one warp.
template <int kPerLane, bool kGrouped>
__global__ void __launch_bounds__(kWarps* kWarp)
    RouteTokens(Rows logits, Router router, Routes routes) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const int n = static_cast<int>(logits.width);
  float* shared = GetDynamicShared<float>();
  for (int64_t row = int64_t{blockIdx.x} * warps + Warp(); row < logits.count;
       row += int64_t{gridDim.x} * warps) {
    if constexpr (kPerLane == 0) {
      InShared table{shared, shared + n, n};
      RouteToken<kGrouped>(table, logits, row, router, routes, table.choices);
    } else {
      InRegisters<kPerLane> table;
      RouteToken<kGrouped>(table, logits, row, router, routes,
                           shared + Warp() * (n + static_cast<int>(router.groups)));
    }
  }
}

template <int kPerLane, bool kGrouped>
void LaunchRoutes(const Rows& logits, const Router& router, const Routes& routes) {
  const int64_t warps = kPerLane == 0 ? 1 : kWarps;
  const int64_t numbers = (kPerLane == 0 ? logits.width : 0) +
                          (kPerLane == 0 || kGrouped ? warps * (logits.width + router.groups) : 0);
  Launch("route", &RouteTokens<kPerLane, kGrouped>, ChooseBlocks(logits.count, warps),
         static_cast<int>(warps) * kWarp, static_cast<size_t>(numbers) * sizeof(float), logits,
         router, routes);
}

template <bool kGrouped>
void RouteRows(const Rows& logits, const Router& router, const Routes& routes) {
  if (logits.width <= kWarp) return LaunchRoutes<1, kGrouped>(logits, router, routes);
  if (logits.width <= 2 * kWarp) return LaunchRoutes<2, kGrouped>(logits, router, routes);
  if (logits.width <= 4 * kWarp) return LaunchRoutes<4, kGrouped>(logits, router, routes);
  if (logits.width <= 8 * kWarp) return LaunchRoutes<8, kGrouped>(logits, router, routes);
  if (logits.width <= 16 * kWarp) return LaunchRoutes<16, kGrouped>(logits, router, routes);
  if (logits.width <= 32 * kWarp) return LaunchRoutes<32, kGrouped>(logits, router, routes);
  LaunchRoutes<0, kGrouped>(logits, router, routes);
}

}  // namespace

void Route(const Rows& logits, const Router& router, const Routes& routes) {
  if (router.groups > 1) {
    RouteRows<true>(logits, router, routes);
  } else {
    RouteRows<false>(logits, router, routes);
  }
}

}  // namespace vllm
