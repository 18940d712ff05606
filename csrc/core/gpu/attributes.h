// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm::gpu {

// An attribute of a device by the toolkit's number for it; of the current device when `device` is
// negative. Throws std::runtime_error with the toolkit's words when there is no such device or
// attribute.
int64_t DeviceAttribute(int64_t attribute, int64_t device);

// Bytes of shared memory that a thread block can have when it asks.
int64_t MaxSharedMemory(int64_t device);

}  // namespace vllm::gpu
