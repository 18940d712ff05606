// SPDX-License-Identifier: Apache-2.0
// The allocations that exist. Python names one by four numbers, and every number is compared before
// an address is used.
#pragma once

#include <cstdint>

#include "allocator/error.h"
#include "allocator/memory.h"

namespace vllm::allocator {

struct Allocation {
  Block block;
  // Somebody's for as long as he maps, unmaps or copies; others wait or are refused. Guarded by the
  // registry's lock, as is `next`.
  bool busy = false;
  Allocation* next = nullptr;
};

// An allocation as Python names it. On ROCm, where physical memory comes in chunks, `handles` will
// be one number for each of them.
struct Name {
  uint64_t device = 0;
  uint64_t size = 0;
  uint64_t address = 0;
  uint64_t handle_address = 0;
};

Name NameOf(const Allocation& allocation);

// Adds a block; null when the host has no memory left. Forget() ends it.
Allocation* Remember(const Block& block);

// The allocation of that name, for the caller alone until GiveBack(); null and the reason when
// there is none, when another thread has it, or when it is not `mapped` as the caller needs it.
Allocation* Borrow(const Name& name, bool mapped, Error* error);
void GiveBack(Allocation* allocation);

// Takes the allocation at an address off the list, after whoever has borrowed it; null when there
// is none. The caller then owns it.
Allocation* Take(uint64_t address);
void Forget(Allocation* allocation);

}  // namespace vllm::allocator
