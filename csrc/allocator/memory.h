// SPDX-License-Identifier: Apache-2.0
// Device memory whose address outlives its contents: the device-independent interface that the
// allocator uses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "allocator/error.h"

namespace vllm::allocator {

// A range of addresses on one device, with or without physical memory.
struct Block {
  int device = 0;
  size_t size = 0;       // in bytes; a multiple of the device's granularity
  uint64_t address = 0;  // on the device
  uint64_t handle = 0;   // the driver's latest handle of the physical memory
  bool mapped = false;   // whether physical memory is mapped
};

// While one of the functions below runs, the device's primary context is current; afterwards the
// previous context is current again. The functions may block until the device has finished its
// work, and they never call Python. A function that fails returns false and leaves the block
// unchanged.

// Reserves addresses for at least `size` bytes. `size` is greater than 0.
bool Reserve(int device, int64_t size, Block* block, Error* error);

// Maps new physical memory, with unspecified contents, at the block's addresses. All kernels on the
// device may read and write it.
bool Map(Block* block, Error* error);

// Waits for the device, then releases the block's physical memory. Its addresses stay reserved.
bool Unmap(Block* block, Error* error);

// Releases the block's addresses and its physical memory, if any. If a step fails, the remaining
// steps are still carried out.
bool Free(Block* block, Error* error);

// The next two functions copy all bytes of a mapped block to or from host memory, after the device
// has finished its work. They return when the copy is complete.
bool CopyToHost(const Block& block, void* host, Error* error);
bool CopyToDevice(const Block& block, const void* host, Error* error);

}  // namespace vllm::allocator
