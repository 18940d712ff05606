// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "moe/expert_ids.h"

namespace vllm {

// Where routes in order of experts go. Each expert's begin at a multiple of a block and are filled
// up to one, with a number that no route has.
struct AlignedRoutes {
  int32_t* sorted =
      nullptr;  // the routes' numbers; behind the last expert's the number that no route has
  int64_t sorted_size = 0;
  int32_t* experts = nullptr;  // the expert of each block; behind the last one -1
  int64_t experts_size = 0;
  int32_t* length = nullptr;   // of the experts' routes, filled up
  int32_t* scatter = nullptr;  // for each route its number, -1 without an expert; null: not wanted
};

// Sorts `routes`, which keep their order within an expert. `map` gives each of `experts` a local
// number or -1, null for their own. Routes with expert -1 or `experts`, which is how routers mark a
// route that is not to be taken, belong to no expert.
//
// On the CPU another expert, a local one outside [-1, experts) and a list without room are a
// std::runtime_error that names the argument of `op`; nothing has been written then. On a GPU such
// experts' routes belong to none, and blocks without room are left out.
void AlignRoutes(const std::string& op, const ExpertIds& routes, int64_t experts, int64_t block,
                 const int32_t* map, const AlignedRoutes& to);

// The same for batches of up to `capacity` tokens for each expert, of which counts[e] are there:
// they are numbered e * capacity onwards. There is room for all that the capacity allows. On a GPU
// a count outside [0, capacity] means the nearest bound.
void AlignBatches(const std::string& op, const int32_t* counts, int64_t experts, int64_t capacity,
                  int64_t block, const AlignedRoutes& to);

}  // namespace vllm
