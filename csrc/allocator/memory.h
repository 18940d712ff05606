// SPDX-License-Identifier: Apache-2.0
// Device memory whose address outlives its contents: what the allocator needs of a device,
// whichever it is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "allocator/error.h"

namespace vllm::allocator {

// A range of addresses of one device, with or without physical memory behind it.
struct Block {
  int device = 0;
  size_t size = 0;       // bytes, a multiple of the device's granularity
  uint64_t address = 0;  // the device's
  uint64_t handle = 0;   // what the driver last called the physical memory
  bool mapped = false;   // whether there is physical memory
};

// The functions below make the device's primary context current while they run and then give back
// the one that was. They may block until the device has finished its work, and never call Python. A
// function that fails returns false and leaves the block as it found it.

// Reserves addresses for at least `size` bytes, which are more than 0.
bool Reserve(int device, int64_t size, Block* block, Error* error);

// Puts new physical memory, of unspecified contents, behind the block's addresses; all kernels of
// the device may read and write it.
bool Map(Block* block, Error* error);

// Waits for the device, then gives the block's physical memory back; its addresses stay reserved.
bool Unmap(Block* block, Error* error);

// Gives the block's addresses back, and the physical memory when there is some. Where a step fails,
// the others are done all the same.
bool Free(Block* block, Error* error);

// Copy all bytes of a block that is mapped to memory of the host, after the device has finished its
// work, or from it. Done when they return.
bool CopyToHost(const Block& block, void* host, Error* error);
bool CopyToDevice(const Block& block, const void* host, Error* error);

}  // namespace vllm::allocator
