// SPDX-License-Identifier: Apache-2.0
// Chooses the tokens that replace rejected drafts: one pass over three rows of the vocabulary.
#include "core/cpu_targets.h"

#include <cstdint>
#include <limits>

#include "sampling/choice.h"
#include "sampling/rejection.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "sampling/rejection_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

using I32 = hn::RebindToSigned<F32>;
using VI32 = hn::Vec<I32>;

// The best score of each lane and the number of its element. NaN is never better.
struct LaneBest {
  VF32 score;
  VI32 index;
};

HWY_INLINE void Update(LaneBest& best, VF32 score, VI32 index) {
  const auto better = hn::Gt(score, best.score);
  best.score = hn::IfThenElse(better, score, best.score);
  best.index = hn::IfThenElse(hn::RebindMask(I32(), better), index, best.index);
}

HWY_INLINE void Merge(const LaneBest& lanes, Choice& best) {
  HWY_ALIGN float scores[hn::MaxLanes(F32())];
  HWY_ALIGN int32_t indices[hn::MaxLanes(F32())];
  hn::Store(lanes.score, F32(), scores);
  hn::Store(lanes.index, I32(), indices);
  for (size_t lane = 0; lane < hn::Lanes(F32()); ++lane) {
    const double score = static_cast<double>(scores[lane]);
    if (score > best.score || (score == best.score && indices[lane] < best.index)) {
      best.score = score;
      best.index = indices[lane];
    }
  }
}

// Updates `best` with elements [begin, end) of a row. `draft` is null if there are no
// probabilities.
template <bool kDraft>
HWY_INLINE void Scan(const float* HWY_RESTRICT target, const float* HWY_RESTRICT draft,
                     const float* HWY_RESTRICT weights, int64_t begin, int64_t end, Choice& best) {
  const F32 d;
  const I32 di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF32 lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const VI32 none = hn::Set(di, std::numeric_limits<int32_t>::max());
  LaneBest best0{lowest, none}, best1{lowest, none};
  VI32 index = hn::Iota(di, static_cast<int32_t>(begin));
  const VI32 step = hn::Set(di, static_cast<int32_t>(lanes));
  const auto score_of = [&](VF32 p, const VF32& q, VF32 weight) HWY_ATTR {
    if constexpr (kDraft) {
      const VF32 more = hn::Sub(p, q);
      // Not Max, which may return either operand for NaN.
      p = hn::IfThenElseZero(hn::Gt(more, hn::Zero(d)), more);
    }
    return hn::Mul(p, weight);
  };
  const auto load = [&](int64_t i) HWY_ATTR {
    const VF32 q = kDraft ? hn::LoadU(d, draft + i) : lowest;
    return score_of(hn::LoadU(d, target + i), q, hn::LoadU(d, weights + i));
  };
  int64_t i = begin;
  for (; i + 2 * lanes <= end; i += 2 * lanes) {
    Update(best0, load(i), index);
    index = hn::Add(index, step);
    Update(best1, load(i + lanes), index);
    index = hn::Add(index, step);
  }
  for (; i < end; i += lanes) {
    const size_t n = static_cast<size_t>(HWY_MIN(lanes, end - i));
    const VF32 q = kDraft ? hn::LoadN(d, draft + i, n) : lowest;
    const VF32 score = score_of(hn::LoadN(d, target + i, n), q, hn::LoadN(d, weights + i, n));
    Update(best0, hn::IfThenElse(hn::FirstN(d, n), score, lowest), index);
    index = hn::Add(index, step);
  }
  Merge(best0, best);
  Merge(best1, best);
}

// The best of chunk [begin, end) for draft `draft` of `request`.
void ScanChunk(const Drafts& drafts, const Probabilities& target, const Probabilities& draft_rows,
               const Probabilities& weights, int64_t request, int64_t draft, int64_t begin,
               int64_t end, Choice& best) {
  best.index = std::numeric_limits<int32_t>::max();
  const float* p = target.Row(draft);
  const float* weight = weights.Row(request);
  if (draft_rows.data != nullptr)
    return Scan<true>(p, draft_rows.Row(draft), weight, begin, end, best);
  // The draft itself has the score 0 * weight, which is NaN if the weight is infinite.
  const int64_t token = drafts.tokens[draft];
  if (token < begin || token >= end) return Scan<false>(p, nullptr, weight, begin, end, best);
  Scan<false>(p, nullptr, weight, begin, token, best);
  const double own = static_cast<double>(0.0f * weight[token]);
  if (own > best.score) {
    best.score = own;
    best.index = token;
  }
  Scan<false>(p, nullptr, weight, token + 1, end, best);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <vector>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(ScanChunk);

void RecoverTokens(const Integers& output, const Drafts& drafts, const Probabilities& target,
                   const Probabilities& draft_rows, const Probabilities& weights,
                   int64_t vocabulary) {
  // Small enough to share the row of one draft among threads.
  constexpr int64_t kChunk = 16384;
  std::vector<int64_t> requests;
  for (int64_t request = 0; request < drafts.requests; ++request)
    requests.resize(static_cast<size_t>(drafts.End(request)), request);
  const int64_t count = static_cast<int64_t>(requests.size());
  const int64_t chunks = (vocabulary + kChunk - 1) / kChunk;
  std::vector<Choice> choices(static_cast<size_t>(count * chunks));
  auto& scan = VLLM_CPU_DISPATCH(ScanChunk);
  ParallelFor(count * chunks, std::min(kChunk, vocabulary), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t draft = item / chunks, first = item % chunks * kChunk;
      scan(drafts, target, draft_rows, weights, requests[static_cast<size_t>(draft)], draft, first,
           std::min(first + kChunk, vocabulary), choices[static_cast<size_t>(item)]);
    }
  });
  for (int64_t draft = 0; draft < count; ++draft) {
    Choice best;
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      best.Merge(choices[static_cast<size_t>(draft * chunks + chunk)]);
    output.Set(draft, best.index);
  }
}

}  // namespace vllm
#endif  // HWY_ONCE
