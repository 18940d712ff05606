// SPDX-License-Identifier: Apache-2.0
// A table of objects that callers hold by number, never by address. Numbers that were released or
// never returned are detected.
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
  // Keeps an object until its number is released. Numbers start at 1 and are never reused.
  int64_t Add(std::shared_ptr<T> object) {
    const std::lock_guard<std::mutex> lock(mutex_);
    objects_.emplace(++last_, std::move(object));
    return last_;
  }

  // Returns the object with a number, or null if there is none. The object lives as long as the
  // pointer, even if the number is released.
  std::shared_ptr<T> Find(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(number);
    return found == objects_.end() ? nullptr : found->second;
  }

  // Removes the object with a number. Returns whether there was one.
  bool Release(int64_t number) {
    std::shared_ptr<T>
        freed;  // declared before the lock, so destroyed after it: destruction may be slow
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(number);
    if (found == objects_.end()) return false;
    freed = std::move(found->second);
    objects_.erase(found);
    return true;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<T>> objects_;
  int64_t last_ = 0;
};

// Returns the only table of objects of this type. It is never destroyed, because Python may release
// handles after static objects are gone.
template <class T>
Handles<T>& GetHandles() {
  static auto* handles = new Handles<T>;
  return *handles;
}

}  // namespace vllm
