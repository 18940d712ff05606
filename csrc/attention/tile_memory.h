// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

#include "attention/kv_cache.h"
#include "hwy/aligned_allocator.h"

namespace vllm {

// Rounds n elements up to whole panels.
inline size_t RoundUpToPanel(size_t n) {
  constexpr size_t kPanel = static_cast<size_t>(CachePages::kPanel);
  return (n + kPanel - 1) / kPanel * kPanel;
}

// A block of aligned, zeroed memory that is divided into parts.
class TileFloats {
 public:
  // Points each pointer to a part with the given number of elements. Throws std::bad_alloc.
  explicit TileFloats(const std::vector<std::pair<float**, size_t>>& parts) {
    size_t total = 0;
    for (const auto& [pointer, size] : parts) total += RoundUpToPanel(size);
    memory_ = hwy::AllocateAligned<float>(total);
    if (memory_ == nullptr) throw std::bad_alloc();
    std::fill(memory_.get(), memory_.get() + total, 0.0f);
    float* next = memory_.get();
    for (const auto& [pointer, size] : parts) {
      *pointer = next;
      next += RoundUpToPanel(size);
    }
  }

 private:
  hwy::AlignedFreeUniquePtr<float[]> memory_;
};

}  // namespace vllm
