// SPDX-License-Identifier: Apache-2.0
// The registry of allocations. Python identifies an allocation by its name, which is compared as a
// whole before an address is used.
#pragma once

#include <cstdint>

#include "allocator/error.h"
#include "allocator/memory.h"

namespace vllm::allocator {

struct Allocation {
  Block block;
  // Whether a thread is mapping, unmapping or copying this allocation; other threads wait or get an
  // error. Guarded by the registry's lock, as is `next`.
  bool busy = false;
  Allocation* next = nullptr;
};

// An allocation as Python identifies it (allocator/name.h).
struct Name {
  uint64_t device = 0;
  uint64_t size = 0;
  uint64_t address = 0;
  uint64_t handle_address = 0;  // of the first chunk's handle; those of the others follow
  uint64_t chunk_size = 0;
};

bool Same(const Name& one, const Name& other);
Name MakeName(const Allocation& allocation);

// Adds a block. Returns null if the host has no memory left. Forget() removes it.
Allocation* Remember(const Block& block);

// Returns the allocation with that name; the caller has exclusive access until GiveBack(). Returns
// null and sets `error` if there is none, if another thread has it, or if its state is not
// `mapped`.
Allocation* Borrow(const Name& name, bool mapped, Error* error);
void GiveBack(Allocation* allocation);

// Removes the allocation at an address from the registry and returns it to the caller, who then
// owns it. Waits for a thread that has borrowed it. Returns null if there is none.
Allocation* Take(uint64_t address);
void Forget(Allocation* allocation);

}  // namespace vllm::allocator
