// SPDX-License-Identifier: Apache-2.0
// Sorts routes in host memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moe/expert_ids.h"

namespace vllm {

// Routes sorted by expert. The part of each expert begins at a multiple of `block` and is padded to
// one.
struct Alignment {
  std::vector<int64_t> starts;  // of each expert, and at the end the whole length
  std::vector<int32_t> locals;  // expert of each route, -1 for none, in the order of the routes
};

// Sorts `routes` by expert. `map` gives each of `experts` a local number or -1; null means the
// identity. Routers mark unused routes by expert -1 or `experts`; these routes belong to no expert.
// Throws std::runtime_error, with `op` and the routes' `name` in the message, if another expert is
// not in [0, experts) or a local number not in [-1, experts).
Alignment Align(const std::string& op, const std::string& name, const ExpertIds& routes,
                int64_t experts, int64_t block, const int32_t* map);

}  // namespace vllm
