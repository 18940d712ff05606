// SPDX-License-Identifier: Apache-2.0
// GPU memory that several processes share, and related functions. All of them throw
// std::runtime_error with the toolkit's message on failure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace vllm::gpu {

// The size of the handle by which another process opens an allocation.
inline constexpr size_t kShareHandleBytes = 64;
using ShareHandle = std::array<unsigned char, kShareHandleBytes>;

// Allocates zeroed memory on the current device that other processes can open, and that kernels on
// several GPUs can read and write at the same time.
std::pair<void*, ShareHandle> AllocateShared(size_t bytes);
void FreeShared(void* memory);

// Returns the handle of the allocation that contains an address, and the address's offset in it.
std::pair<ShareHandle, int64_t> ExportShared(const void* address);

// Opens the memory of another process's handle on the current device. It stays open until the
// process ends.
void* OpenShared(const ShareHandle& handle);

// Returns whether the current stream is capturing a graph.
bool IsCapturing();

// Copies before any kernel that is launched later. `from` is host memory, which may change after
// the call.
void CopyToDevice(void* to, const void* from, size_t bytes);

}  // namespace vllm::gpu
