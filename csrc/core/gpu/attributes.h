// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm::gpu {

// Returns an attribute of a device, given the toolkit's number for the attribute; a negative
// `device` means the current device. Throws std::runtime_error with the toolkit's message if there
// is no such device or attribute.
int64_t GetDeviceAttribute(int64_t attribute, int64_t device);

// Returns the bytes of shared memory that a thread block can have if it opts in.
int64_t GetMaxSharedMemory(int64_t device);

}  // namespace vllm::gpu
