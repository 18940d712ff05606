// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "activation/activation.h"
#include "core/rows.h"
#include "gemm/panels.h"
#include "moe/alignment.h"

namespace vllm {

// Returns the panels, without data, of one expert's matrix. The caller of prepack_moe_weight gives
// memory for the matrix without padding, so only matrices that need none are packed in words.
inline Panels GetExpertPanels(DType dtype, int64_t depth, int64_t columns) {
  Panels panels{nullptr, dtype, depth, columns, PrefersWords(dtype)};
  panels.words = panels.words && panels.Elements() == depth * columns;
  return panels;
}

// The experts' feed-forward layers. Their weights are packed as GetExpertPanels says, one expert
// after the other.
struct Experts {
  DType dtype = DType::kFloat32;  // of all weights and biases
  int64_t count = 0;
  int64_t hidden = 0;
  int64_t inner = 0;
  const void* w13 = nullptr;     // of each expert `hidden` rows and 2 * inner columns
  const void* w2 = nullptr;      // of each expert `inner` rows and `hidden` columns
  const void* bias13 = nullptr;  // [count, 2 * inner] or null
  const void* bias2 = nullptr;   // [count, hidden] or null
  Gate gate;                     // of the first product's 2 * inner columns
};

// The weights of routes: choice k of token t has weights[t * token_stride + k * choice_stride];
// null means ones.
struct RouteWeights {
  const float* weights = nullptr;
  int64_t token_stride = 0;
  int64_t choice_stride = 0;

  float Get(int64_t token, int64_t choice) const {
    return weights == nullptr ? 1.0f : weights[token * token_stride + choice * choice_stride];
  }
};

// out[t] = sum over the choices of token t of weight * (gate(input[t] * w13 + bias13) * w2 +
// bias2), in float32 and rounded once. If the dtype is bfloat16, the results of the gate are
// rounded too. `routes` are aligned to blocks of 1 and have `topk` choices for each token; choices
// without an expert add nothing.
void ApplyExperts(const Rows& out, const Rows& input, const Experts& experts, int64_t topk,
                  const std::vector<int32_t>& routes, const RouteWeights& weights);

}  // namespace vllm
