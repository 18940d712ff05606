// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "attention/heads.h"

namespace vllm {

// Merges attention over two disjoint sets of keys (Ye et al., arXiv:2501.01005, section 2.2). The
// lse of a token's head is log(sum(exp(scores))), the sum being over a set's keys. With the two lse
// a and b:
//   output = (exp(a) prefix + exp(b) suffix) / (exp(a) + exp(b))
//   output_lse = log(exp(a) + exp(b))
// An infinite lse, of either sign, means that the set has no keys. If neither set has keys, the
// output is zero and output_lse is -infinity. If either lse is NaN, the output and its lse are NaN.
// Rows of `output`, `prefix` and `suffix` are tokens, whose heads may be adjacent or apart; lse
// tensors are [heads, tokens]. Tokens from `merged_tokens` on have no prefix: the suffix is copied.
struct MergeStates {
  AttentionHeads output;
  AttentionHeads prefix;
  AttentionHeads suffix;
  const float* prefix_lse = nullptr;
  const float* suffix_lse = nullptr;
  float* output_lse = nullptr;                                                  // or null
  int64_t prefix_lse_stride = 0, suffix_lse_stride = 0, output_lse_stride = 0;  // from head to head
  int64_t merged_tokens = 0;
};

void RunMergeStates(const MergeStates& merge);

}  // namespace vllm
