// SPDX-License-Identifier: Apache-2.0
// Memory of a GPU that several processes have, and what goes with it. Everything throws
// std::runtime_error with the toolkit's words when it fails.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace vllm::gpu {

// What another process needs to reach an allocation.
inline constexpr size_t kShareHandleBytes = 64;
using ShareHandle = std::array<unsigned char, kShareHandleBytes>;

// Memory on the current device, zeroed, which other processes can open.
std::pair<void*, ShareHandle> AllocateShared(size_t bytes);
void FreeShared(void* memory);

// The handle of the allocation that an address lies in, and the address's distance from its begin.
std::pair<ShareHandle, int64_t> ShareOf(const void* address);

// The memory behind another process's handle, on the current device. It stays open for the life of
// the process.
void* OpenShared(const ShareHandle& handle);

// Whether the current stream records what it is given, to do it later.
bool IsCapturing();

// Copies before any kernel that is launched later; `from` is host memory, which may change
// afterwards.
void CopyToDevice(void* to, const void* from, size_t bytes);

}  // namespace vllm::gpu
