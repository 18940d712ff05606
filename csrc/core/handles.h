// SPDX-License-Identifier: Apache-2.0
// Things behind numbers. A caller holds a number, never an address: one that was released or never
// given is found out.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace vllm {

template <class T>
class Handles {
 public:
  // Keeps a thing until its number is released. Numbers start at 1 and do not come twice.
  int64_t Add(std::shared_ptr<T> thing) {
    const std::lock_guard<std::mutex> lock(mutex_);
    things_.emplace(++last_, std::move(thing));
    return last_;
  }

  // The thing behind a number, null for a number that stands for none. It stays as long as the
  // pointer does, released or not.
  std::shared_ptr<T> Find(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = things_.find(number);
    return found == things_.end() ? nullptr : found->second;
  }

  // Forgets the thing behind a number. Returns whether there was any.
  bool Release(int64_t number) {
    std::shared_ptr<T> freed;  // declared before the lock, so freed after it: that takes time
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = things_.find(number);
    if (found == things_.end()) return false;
    freed = std::move(found->second);
    things_.erase(found);
    return true;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<T>> things_;
  int64_t last_ = 0;
};

// The one table of things of this type. Never destroyed: Python may release handles after static
// objects are gone.
template <class T>
Handles<T>& TheHandles() {
  static auto* handles = new Handles<T>;
  return *handles;
}

}  // namespace vllm
