// SPDX-License-Identifier: Apache-2.0
// my_malloc and my_free, the two functions that torch's CUDAPluggableAllocator looks up by name. It
// calls them from any thread, with or without the GIL.
#include <sys/types.h>

#include <cinttypes>

#include "allocator/callbacks.h"
#include "allocator/memory.h"
#include "allocator/python.h"
#include "allocator/registry.h"

#define VLLM_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using vllm::allocator::Allocation;
using vllm::allocator::Block;
using vllm::allocator::Error;
using vllm::allocator::Name;

// Frees an allocation that is no longer in the registry.
void FreeAllocation(Allocation* allocation) {
  Error error;
  if (!vllm::allocator::Free(&allocation->block, &error)) vllm::allocator::ReportError(error);
  vllm::allocator::Forget(allocation);
}

// Maps and registers a new allocation. Returns null and sets `error` on failure.
Allocation* Allocate(ssize_t size, int device, Error* error) {
  if (size < 0) {
    error->Set(Error::Kind::kFailed, "cannot allocate %zd bytes", size);
    return nullptr;
  }
  if (!Py_IsInitialized() || !vllm::allocator::HaveCallbacks()) {
    error->Set(Error::Kind::kFailed, "cannot allocate %zd bytes: init_module has not been called",
               size);
    return nullptr;
  }
  Block block;
  if (!vllm::allocator::Reserve(device, size, &block, error)) return nullptr;
  Allocation* allocation =
      vllm::allocator::Map(&block, error) ? vllm::allocator::Remember(block) : nullptr;
  if (allocation == nullptr) {
    if (block.mapped)
      error->Set(Error::Kind::kFailed,
                 "the host has no memory left to record an allocation of %zd bytes", size);
    Error ignored;  // only the first failure is reported
    vllm::allocator::Free(&block, &ignored);
  }
  return allocation;
}

}  // namespace

// Returns null if no memory is left: torch then frees its cached memory, tries again and raises its
// OutOfMemoryError. Other failures also return null, and are reported first. The stream plays no
// role: the memory is ready when the function returns.
VLLM_EXPORT void* my_malloc(ssize_t size, int device, void* /*stream*/) {
  if (size == 0) return nullptr;
  Error error;
  Allocation* allocation = Allocate(size, device, &error);
  if (allocation == nullptr) {
    if (error.kind != Error::Kind::kOutOfMemory) vllm::allocator::ReportError(error);
    return nullptr;
  }
  // From here on the allocation is identified by its name: Python may free it at once, and another
  // thread may then reuse the record.
  const Name name = vllm::allocator::MakeName(*allocation);
  if (!vllm::allocator::ReportAllocation(name)) {
    Allocation* refused = vllm::allocator::Take(name.address);
    if (refused != nullptr) FreeAllocation(refused);
    return nullptr;
  }
  return reinterpret_cast<void*>(name.address);
}

// Waits for the device, no matter which stream used the memory last.
VLLM_EXPORT void my_free(void* pointer, ssize_t /*size*/, int /*device*/, void* /*stream*/) {
  if (pointer == nullptr) return;
  const uint64_t address = reinterpret_cast<uintptr_t>(pointer);
  Allocation* allocation = vllm::allocator::Take(address);
  if (allocation == nullptr) {
    Error error;
    error.Set(Error::Kind::kFailed,
              "cannot free 0x%" PRIx64 ": no allocation begins at that address", address);
    vllm::allocator::ReportError(error);
    return;
  }
  if (Py_IsInitialized()) vllm::allocator::ReportFree(vllm::allocator::MakeName(*allocation));
  FreeAllocation(allocation);
}
