// SPDX-License-Identifier: Apache-2.0
// The order of routes in the host's memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moe/expert_ids.h"

namespace vllm {

// The routes in order of experts. Each expert's part begins at a multiple of `block`, and is filled
// up to one.
struct Alignment {
  std::vector<int64_t> starts;  // of each expert, and at the end the whole length
  std::vector<int32_t> locals;  // expert of each route, -1 for none, in the order of the routes
};

// Sorts `routes` by expert. `map` gives each of `experts` a local number or -1, null for their own.
// Routes with expert -1 or `experts`, which is how routers mark a route that is not to be taken,
// belong to no expert. Throws std::runtime_error, with `op` and the routes' `name` in the message,
// when another expert is not in [0, experts), or a local one not in [-1, experts).
Alignment Align(const std::string& op, const std::string& name, const ExpertIds& routes,
                int64_t experts, int64_t block, const int32_t* map);

}  // namespace vllm
