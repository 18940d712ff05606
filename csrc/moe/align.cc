// SPDX-License-Identifier: Apache-2.0
#include "moe/align.h"

#include <stdexcept>

namespace vllm {

Alignment Align(const std::string& op, const std::string& name, const ExpertIds& routes, int64_t experts, int64_t block,
                const int32_t* map) {
  if (map != nullptr) {
    for (int64_t expert = 0; expert < experts; ++expert) {
      if (map[expert] >= -1 && map[expert] < experts) continue;
      throw std::runtime_error(op + ": maybe_expert_map[" + std::to_string(expert) + "] is " + std::to_string(map[expert]) +
                               ", expected -1 or a number below num_experts " + std::to_string(experts));
    }
  }
  Alignment result;
  result.starts.assign(static_cast<size_t>(experts) + 1, 0);
  result.locals.reserve(static_cast<size_t>(routes.tokens * routes.topk));
  for (int64_t token = 0; token < routes.tokens; ++token) {
    for (int64_t choice = 0; choice < routes.topk; ++choice) {
      const int64_t expert = routes.At(token, choice);
      if (expert < -1 || expert > experts) {
        throw std::runtime_error(op + ": " + name + "[" + std::to_string(token) + ", " + std::to_string(choice) + "] is " +
                                 std::to_string(expert) + ", expected an expert below " + std::to_string(experts) + ", or -1 or " +
                                 std::to_string(experts) + " for no expert");
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

}  // namespace vllm
