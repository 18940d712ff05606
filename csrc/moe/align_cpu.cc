// SPDX-License-Identifier: Apache-2.0
#include "moe/align.h"

#include <algorithm>
#include <stdexcept>

#include "moe/alignment.h"

namespace vllm {
namespace {

void CheckRoom(const std::string& op, const char* name, int64_t size, int64_t needed,
               const char* why) {
  if (size >= needed) return;
  throw std::runtime_error(op + ": " + name + " has " + std::to_string(size) +
                           " elements, expected at least " + std::to_string(needed) + ": " + why);
}

}  // namespace

Alignment Align(const std::string& op, const std::string& name, const ExpertIds& routes,
                int64_t experts, int64_t block, const int32_t* map) {
  if (map != nullptr) {
    for (int64_t expert = 0; expert < experts; ++expert) {
      if (map[expert] >= -1 && map[expert] < experts) continue;
      throw std::runtime_error(op + ": maybe_expert_map[" + std::to_string(expert) + "] is " +
                               std::to_string(map[expert]) +
                               ", expected -1 or a number below num_experts " +
                               std::to_string(experts));
    }
  }
  Alignment result;
  result.starts.assign(static_cast<size_t>(experts) + 1, 0);
  result.locals.reserve(static_cast<size_t>(routes.tokens * routes.topk));
  for (int64_t token = 0; token < routes.tokens; ++token) {
    for (int64_t choice = 0; choice < routes.topk; ++choice) {
      const int64_t expert = routes.Get(token, choice);
      if (expert < -1 || expert > experts) {
        throw std::runtime_error(op + ": " + name + "[" + std::to_string(token) + ", " +
                                 std::to_string(choice) + "] is " + std::to_string(expert) +
                                 ", expected an expert below " + std::to_string(experts) +
                                 ", or -1 or " + std::to_string(experts) + " for no expert");
      }
      const bool none = expert == -1 || expert == experts;
      const int32_t local = none ? -1 : map == nullptr ? static_cast<int32_t>(expert) : map[expert];
      result.locals.push_back(local);
      if (local >= 0) ++result.starts[static_cast<size_t>(local)];
    }
  }
  int64_t start = 0;
  for (int64_t& entry : result.starts) {
    const int64_t count = entry;
    entry = start;
    start += (count + block - 1) / block * block;
  }
  return result;
}

void AlignRoutes(const std::string& op, const ExpertIds& routes, int64_t experts, int64_t block,
                 const int32_t* map, const AlignedRoutes& to) {
  Alignment alignment = Align(op, "topk_ids", routes, experts, block, map);
  const int64_t count = routes.tokens * routes.topk, total = alignment.starts.back();
  CheckRoom(op, "sorted_token_ids", to.sorted_size, total,
            "the routes of every expert, padded to whole blocks");
  CheckRoom(op, "experts_ids", to.experts_size, total / block, "one for each block");
  std::fill(to.sorted, to.sorted + to.sorted_size, static_cast<int32_t>(count));
  for (int64_t expert = 0; expert < experts; ++expert) {
    const size_t e = static_cast<size_t>(expert);
    std::fill(to.experts + alignment.starts[e] / block,
              to.experts + alignment.starts[e + 1] / block, static_cast<int32_t>(expert));
  }
  std::fill(to.experts + total / block, to.experts + to.experts_size, -1);
  to.length[0] = static_cast<int32_t>(total);
  for (int64_t route = 0; route < count; ++route) {
    const int32_t expert = alignment.locals[static_cast<size_t>(route)];
    if (to.scatter != nullptr) to.scatter[route] = expert < 0 ? -1 : static_cast<int32_t>(route);
    if (expert >= 0)
      to.sorted[alignment.starts[static_cast<size_t>(expert)]++] = static_cast<int32_t>(route);
  }
}

void AlignBatches(const std::string& op, const int32_t* counts, int64_t experts, int64_t capacity,
                  int64_t block, const AlignedRoutes& to) {
  for (int64_t expert = 0; expert < experts; ++expert) {
    if (counts[expert] >= 0 && counts[expert] <= capacity) continue;
    throw std::runtime_error(op + ": expert_num_tokens[" + std::to_string(expert) + "] is " +
                             std::to_string(counts[expert]) +
                             ", expected 0 to max_tokens_per_batch " + std::to_string(capacity));
  }
  std::fill(to.sorted, to.sorted + to.sorted_size, static_cast<int32_t>(experts * capacity));
  std::fill(to.experts, to.experts + to.experts_size, -1);
  int64_t at = 0;
  for (int64_t expert = 0; expert < experts; ++expert) {
    for (int32_t i = 0; i < counts[expert]; ++i)
      to.sorted[at + i] = static_cast<int32_t>(expert * capacity + i);
    const int64_t used = (counts[expert] + block - 1) / block;
    std::fill(to.experts + at / block, to.experts + at / block + used,
              static_cast<int32_t>(expert));
    at += used * block;
  }
  to.length[0] = static_cast<int32_t>(at);
}

}  // namespace vllm
