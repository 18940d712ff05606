// SPDX-License-Identifier: Apache-2.0
// What is asked of the current device and its current stream, and what is said when a launch
// failed, without a header of a toolkit.
#pragma once

#include <cstddef>

namespace vllm::gpu {

// torch's current stream of the current device, as the toolkit's handle.
void* CurrentStream();

// Multiprocessors of the current device.
int MultiprocessorCount();

// The current device's compute capability: 90 for 9.0.
int ComputeCapability();

// Copies `bytes` on the current stream. Either side lies on the device or in the host's memory, and
// they do not overlap.
void CopyAsync(void* to, const void* from, size_t bytes);

// Throws std::runtime_error that names the kernel and says what is wrong. `error` is the toolkit's,
// `architectures` those that the kernel was compiled for.
[[noreturn]] void FailLaunch(const char* kernel, int error, const char* architectures);

}  // namespace vllm::gpu
