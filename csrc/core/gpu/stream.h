// SPDX-License-Identifier: Apache-2.0
// Queries about the current device and its current stream, and the error of a failed launch,
// without a toolkit's header.
#pragma once

#include <cstddef>

namespace vllm::gpu {

// Returns torch's current stream of the current device, as the toolkit's handle.
void* GetCurrentStream();

// Returns the number of multiprocessors of the current device.
int GetMultiprocessorCount();

// Returns the current device's compute capability: 90 for 9.0. On ROCm, the first two numbers of
// the architecture: 94 for gfx942, 110 for gfx1100.
int GetComputeCapability();

// Returns whether the instructions of the current device take float8_e4m3fnuz for E4M3, as those of
// gfx942 do, instead of float8_e4m3fn.
bool HasFnuz();

// Copies `bytes` bytes on the current stream. Each side is on the device or in host memory, and
// they do not overlap.
void CopyAsync(void* to, const void* from, size_t bytes);

// Throws std::runtime_error that names the kernel and the cause. `error` is the toolkit's code, and
// `architectures` lists those for which the kernel was compiled.
[[noreturn]] void FailLaunch(const char* kernel, int error, const char* architectures);

}  // namespace vllm::gpu
