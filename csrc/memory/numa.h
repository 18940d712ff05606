// SPDX-License-Identifier: Apache-2.0
// Binds memory to NUMA nodes with system calls, without libnuma.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vllm {

// Linux's folder with one folder per NUMA node.
inline constexpr char kNodesFolder[] = "/sys/devices/system/node";

// Takes the memory of the process from `nodes`: pages that the calling thread and its future
// threads allocate, and, as far as the kernel moves them, the pages that the process has. Several
// nodes take turns page by page. Does nothing if `nodes` is empty, if the machine has memory on one
// node only, or if the operating system does not say. `folder` is kNodesFolder except in tests.
//
// Returns a warning for the user, which is empty if all is well. A container may forbid these
// calls; the process then runs with memory from anywhere. Throws std::runtime_error if a node does
// not exist or has no memory.
std::string BindMemory(const std::vector<int64_t>& nodes, const std::string& folder = kNodesFolder);

}  // namespace vllm
