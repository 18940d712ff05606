// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "hwy/aligned_allocator.h"

namespace vllm {

// The memory of one thread for rows of A and for sums. It grows to what a product needs.
class PanelMemory {
 public:
  // Return memory for that many words; what was in it is lost.
  uint32_t* GetA(size_t words) { return Grow(a_, a_size_, words); }
  uint32_t* GetC(size_t words) { return Grow(c_, c_size_, words); }

 private:
  using Memory = hwy::AlignedFreeUniquePtr<uint32_t[]>;

  static uint32_t* Grow(Memory& memory, size_t& size, size_t words) {
    if (size < words) {
      memory = hwy::AllocateAligned<uint32_t>(words);
      size = words;
    }
    return memory.get();
  }

  Memory a_, c_;
  size_t a_size_ = 0, c_size_ = 0;
};

}  // namespace vllm
