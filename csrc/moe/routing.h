// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// How a router's outputs are converted to scores.
enum class Scoring {
  kNone,     // outputs are scores
  kSoftmax,  // exp(x) / sum over the row
  kSigmoid,  // 1 / (1 + exp(-x))
};

// The integer type of expert numbers in a contiguous table.
enum class IndexType { kInt32, kInt64 };

// The rule that determines which experts a token goes to, and with which weights.
struct Router {
  Scoring scoring = Scoring::kSoftmax;
  int64_t topk = 0;
  // Added to the scores to choose experts, but not to compute weights. One element of bias_dtype
  // for each expert, or null.
  const void* bias = nullptr;
  DType bias_dtype = DType::kFloat32;
  // Whether to divide the weights of the chosen experts by their sum, before all weights are
  // multiplied by `scale`.
  bool renormalize = false;
  float scale = 1.0f;
  // One byte for each token, or null. A token with a non-zero byte gets expert -1 with weight 0 for
  // all choices.
  const uint8_t* padding = nullptr;
  // If groups > 1, the experts are divided into that many groups of the same size. A token keeps
  // the best `kept_groups`: those with the largest sum of their two best choices (DeepSeek-V3,
  // arXiv:2412.19437, section 2.1.2).
  int64_t groups = 1;
  int64_t kept_groups = 1;
};

// The destination of the choices: contiguous tables of [tokens, topk].
struct Routes {
  float* weights = nullptr;
  void* experts = nullptr;
  IndexType type = IndexType::kInt32;
  // k * tokens + token for choice k of a token; may be null.
  int32_t* positions = nullptr;
};

// Routes every row of `logits`: one token, with one element for each expert. The best experts come
// first; of equal ones, the lower number. The experts chosen for a token always differ: a score
// that is not finite counts as 0 and is chosen last. NaN or +infinity among the logits of a softmax
// makes all of the row's scores NaN. An expert whose bias is NaN is also chosen last; its weight is
// its score.
void Route(const Rows& logits, const Router& router, const Routes& routes);

}  // namespace vllm
