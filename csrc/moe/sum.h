// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"
#include "moe/expert_ids.h"

namespace vllm {

// Selects the routes that have an expert here. Without ids, all have one. Otherwise those whose
// expert is not negative and, with a map of `experts`, has a non-negative number there.
struct TakenRoutes {
  ExpertIds ids;
  const int32_t* map = nullptr;
  int64_t experts = 0;

  VLLM_HOST_DEVICE bool HasExpert(int64_t token, int64_t choice) const {
    if (ids.data == nullptr) return true;
    const int64_t expert = ids.Get(token, choice);
    return expert >= 0 && (map == nullptr || (expert < experts && map[expert] >= 0));
  }
};

// out[t] = sum over k of input[t * topk + k], in float32 and rounded once. Rows of routes that are
// not selected are not read. input.count is topk * out.count. Both have the same dtype and width
// and do not overlap.
void SumChoices(const Rows& out, const Rows& input, int64_t topk, const TakenRoutes& taken);

}  // namespace vllm
