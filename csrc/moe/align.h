// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "moe/expert_ids.h"

namespace vllm {

// The destination of routes sorted by expert. The routes of each expert begin at a multiple of a
// block and are padded to one with a number that is not a route's.
struct AlignedRoutes {
  int32_t* sorted = nullptr;  // the routes' numbers; after the last expert's, the padding number
  int64_t sorted_size = 0;
  int32_t* experts = nullptr;  // the expert of each block; after the last one, -1
  int64_t experts_size = 0;
  int32_t* length = nullptr;   // of the experts' routes, padded
  int32_t* scatter = nullptr;  // for each route its number, -1 without an expert; null: not wanted
};

// Sorts `routes` by expert; they keep their order within an expert. `map` gives each of `experts` a
// local number or -1; null means the identity. Routers mark unused routes by expert -1 or
// `experts`; these routes belong to no expert.
//
// On the CPU, other expert numbers, local numbers outside [-1, experts) and lists without enough
// room raise std::runtime_error that names the argument of `op`; nothing has been written then. On
// a GPU, routes with such experts belong to none, and blocks without room are omitted.
void AlignRoutes(const std::string& op, const ExpertIds& routes, int64_t experts, int64_t block,
                 const int32_t* map, const AlignedRoutes& to);

// The same for batches of up to `capacity` tokens for each expert, of which counts[e] exist; they
// are numbered from e * capacity on. The lists have room for the whole capacity. On a GPU, a count
// outside [0, capacity] is clamped.
void AlignBatches(const std::string& op, const int32_t* counts, int64_t experts, int64_t capacity,
                  int64_t block, const AlignedRoutes& to);

}  // namespace vllm
