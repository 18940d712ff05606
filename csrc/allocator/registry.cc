// SPDX-License-Identifier: Apache-2.0
#include "allocator/registry.h"

#include <pthread.h>

#include <cinttypes>
#include <cstdlib>
#include <new>

#include "allocator/mutex.h"

namespace vllm::allocator {
namespace {

Mutex mutex;
pthread_cond_t given_back = PTHREAD_COND_INITIALIZER;
// A list is fast enough: a process has some hundreds of allocations of megabytes each, and each
// operation on one calls the driver.
Allocation* first = nullptr;

Allocation** Find(uint64_t address) {
  Allocation** place = &first;
  while (*place != nullptr && (*place)->block.address != address) place = &(*place)->next;
  return place;
}

}  // namespace

Name MakeName(const Allocation& allocation) {
  const Block& block = allocation.block;
  return Name{static_cast<uint64_t>(block.device), block.size, block.address,
              reinterpret_cast<uintptr_t>(&block.chunks->handle), block.chunk_size};
}

bool Same(const Name& one, const Name& other) {
  return one.device == other.device && one.size == other.size && one.address == other.address &&
         one.handle_address == other.handle_address && one.chunk_size == other.chunk_size;
}

Allocation* Remember(const Block& block) {
  void* memory = std::malloc(sizeof(Allocation));
  if (memory == nullptr) return nullptr;
  Allocation* allocation = new (memory) Allocation{block, false, nullptr};
  const Lock lock(&mutex);
  allocation->next = first;
  first = allocation;
  return allocation;
}

Allocation* Borrow(const Name& name, bool mapped, Error* error) {
  const Lock lock(&mutex);
  Allocation* found = *Find(name.address);
  if (found == nullptr || !Same(MakeName(*found), name)) {
    error->Set(Error::Kind::kFailed,
               "there is no allocation of %" PRIu64 " bytes at 0x%" PRIx64 " of device %" PRIu64
               " with its handle at 0x%" PRIx64,
               name.size, name.address, name.device, name.handle_address);
    return nullptr;
  }
  if (found->busy) {
    error->Set(Error::Kind::kFailed, "another thread is busy with the allocation at 0x%" PRIx64,
               name.address);
    return nullptr;
  }
  if (found->block.mapped != mapped) {
    error->Set(Error::Kind::kFailed, "the allocation at 0x%" PRIx64 " is %s", name.address,
               mapped ? "not mapped" : "mapped already");
    return nullptr;
  }
  found->busy = true;
  return found;
}

void GiveBack(Allocation* allocation) {
  const Lock lock(&mutex);
  allocation->busy = false;
  pthread_cond_broadcast(&given_back);
}

Allocation* Take(uint64_t address) {
  Lock lock(&mutex);
  Allocation** place = Find(address);
  while (*place != nullptr && (*place)->busy) {
    lock.Wait(&given_back);
    place = Find(address);
  }
  Allocation* allocation = *place;
  if (allocation != nullptr) *place = allocation->next;
  return allocation;
}

void Forget(Allocation* allocation) { std::free(allocation); }

}  // namespace vllm::allocator
