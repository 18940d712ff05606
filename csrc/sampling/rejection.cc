// SPDX-License-Identifier: Apache-2.0
// The decisions about drafts. They take a few numbers of each row.
#include "sampling/rejection.h"

#include "core/cpu_parallel.h"

namespace vllm {
namespace {

// Enough that only batches with many drafts use several threads.
constexpr int64_t kElementsOfRequest = 64;

// Writes accept(draft, token)'s tokens until it returns false, then the bonus if it never does.
// Negative tokens are padding.
template <typename Decide>
void AcceptDrafts(const Accepted& accepted, const Drafts& drafts, int64_t request,
                  const Decide& decide) {
  const Integers row = accepted.tokens.From(request * accepted.row);
  const int64_t begin = drafts.Begin(request), end = drafts.End(request);
  for (int64_t draft = begin; draft < end; ++draft) {
    int64_t token = drafts.tokens[draft];
    const bool goes_on = decide(draft, token);
    row.Set(draft - begin, token);
    if (!goes_on) return;
  }
  row.Set(end - begin, accepted.bonus[request]);
}

template <typename Decide>
void AcceptBatch(const Accepted& accepted, const Drafts& drafts, bool greedy,
                 const Decide& decide) {
  ParallelFor(drafts.requests, kElementsOfRequest, [&](int64_t begin, int64_t end) {
    for (int64_t request = begin; request < end; ++request) {
      if (accepted.IsGreedy(request) == greedy) AcceptDrafts(accepted, drafts, request, decide);
    }
  });
}

}  // namespace

void AcceptGreedily(const Accepted& accepted, const Drafts& drafts, const Integers& target) {
  AcceptBatch(accepted, drafts, true, [&](int64_t draft, int64_t& token) {
    const bool same = token == target[draft];
    token = target[draft];
    return same;
  });
}

void AcceptRandomly(const Accepted& accepted, const Drafts& drafts, const Probabilities& target,
                    const Probabilities& draft_probabilities, const Integers& recovered,
                    const Uniforms& uniforms) {
  AcceptBatch(accepted, drafts, false, [&](int64_t draft, int64_t& token) {
    if (token >= 0) {
      const float p = target.Row(draft)[token];
      const float q =
          draft_probabilities.data == nullptr ? 1.0f : draft_probabilities.Row(draft)[token];
      if (q > 0 && p / q >= uniforms[draft]) return true;
    }
    token = recovered[draft];
    return false;
  });
}

}  // namespace vllm
