// SPDX-License-Identifier: Apache-2.0
// Device memory whose address outlives its contents: the device-independent interface that the
// allocator uses.
#pragma once

#include <cstdint>

#include "allocator/block.h"
#include "allocator/error.h"

namespace vllm::allocator {

// Whether blocks may have several chunks, as Python then has to know (allocator/name.h).
extern const bool kHasChunks;

// Reads the settings for new blocks from the environment. Returns false and sets `error`, which
// names the variable, if a value is malformed; the settings are then unchanged. The caller makes
// sure that no thread changes the environment meanwhile.
bool ReadSettings(Error* error);

// While one of the functions below runs, the block's device is current; afterwards the previous one
// is current again. The functions may block until the device has finished its work, and they never
// call Python. A function that fails returns false and leaves the block unchanged, except where it
// says otherwise.

// Reserves addresses for at least `size` bytes. `size` is greater than 0.
bool Reserve(int device, int64_t size, Block* block, Error* error);

// Maps physical memory, with unspecified contents, at the block's addresses. All kernels on the
// device may read and write it.
bool Map(Block* block, Error* error);

// Waits for the device, then releases the block's physical memory. Its addresses stay reserved. If
// the memory is unmapped but the driver refuses to release some of it, the function returns true
// and sets `error`; Map() uses that memory again, and Free() tries once more.
bool Unmap(Block* block, Error* error);

// Releases the block's addresses and its physical memory, if any. If a step fails, the remaining
// steps are still carried out, and the block can no longer be used.
bool Free(Block* block, Error* error);

// The next two functions copy all bytes of a mapped block to or from host memory, after the device
// has finished its work. They return when the copy is complete.
bool CopyToHost(const Block& block, void* host, Error* error);
bool CopyToDevice(const Block& block, const void* host, Error* error);

}  // namespace vllm::allocator
