// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// How a router's outputs become scores.
enum class Scoring {
  kNone,     // they are scores
  kSoftmax,  // exp(x) / sum over the row
  kSigmoid,  // 1 / (1 + exp(-x))
};

// Expert numbers of one width, in a contiguous table.
enum class IndexType { kInt32, kInt64 };

// Which experts a token goes to, and with what weights: the rule.
struct Router {
  Scoring scoring = Scoring::kSoftmax;
  int64_t topk = 0;
  // Added to the scores to choose experts, not to weigh them; null for nothing. One element of
  // bias_dtype for each expert.
  const void* bias = nullptr;
  DType bias_dtype = DType::kFloat32;
  // Divide the chosen experts' weights by their sum, then multiply all weights.
  bool renormalize = false;
  float scale = 1.0f;
  // One byte a token, null for nothing: a token with a non-zero one gets expert -1 with weight 0
  // throughout.
  const uint8_t* padding = nullptr;
  // With groups > 1 the experts come in that many groups of the same size, of which a token keeps
  // the best `kept_groups`: those with the greatest sum of their two best choices (DeepSeek-V3,
  // arXiv:2412.19437, section 2.1.2).
  int64_t groups = 1;
  int64_t kept_groups = 1;
};

// Where the choice goes: tables of [tokens, topk], contiguous.
struct Routes {
  float* weights = nullptr;
  void* experts = nullptr;
  IndexType type = IndexType::kInt32;
  // k * tokens + token for choice k of a token; null for nothing.
  int32_t* positions = nullptr;
};

// Routes every row of `logits`, one token each with one element for each expert. The best come
// first; of equals the lower number. All chosen experts of a token differ whatever the values are:
// a score that is not finite counts as 0, and is chosen last. NaN among the logits of a softmax
// makes all of the row's scores NaN, and so does +infinity. An expert whose bias is NaN is chosen
// last, too, and weighs what its score is.
void Route(const Rows& logits, const Router& router, const Routes& routes);

}  // namespace vllm
