// SPDX-License-Identifier: Apache-2.0
#include "gemm/handles.h"

#include <mutex>
#include <unordered_map>
#include <utility>

namespace vllm {
namespace {

struct Registry {
  std::mutex mutex;
  std::unordered_map<int64_t, std::shared_ptr<const Weights>> weights;
  int64_t last = 0;
};

// Never destroyed: Python may release handles after static objects are gone.
Registry& TheRegistry() {
  static Registry* registry = new Registry;
  return *registry;
}

}  // namespace

int64_t KeepWeights(std::shared_ptr<const Weights> weights) {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  registry.weights.emplace(++registry.last, std::move(weights));
  return registry.last;
}

std::shared_ptr<const Weights> FindWeights(int64_t number) {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  const auto found = registry.weights.find(number);
  return found == registry.weights.end() ? nullptr : found->second;
}

bool ReleaseWeights(int64_t number) {
  Registry& registry = TheRegistry();
  std::shared_ptr<const Weights> freed;  // declared before the lock, so freed after it: that takes time
  const std::lock_guard<std::mutex> lock(registry.mutex);
  const auto found = registry.weights.find(number);
  if (found == registry.weights.end()) return false;
  freed = std::move(found->second);
  registry.weights.erase(found);
  return true;
}

}  // namespace vllm
