// SPDX-License-Identifier: Apache-2.0
// The HIP runtime that the process has loaded: torch for ROCm brings one, under a name of its own.
#pragma once

namespace vllm::gpu::hip {

// Returns the address of `name` in the loaded libamdhip64 of any version; null if the process has
// loaded none, or if it lacks the function. Loads nothing. Thread-safe.
void* FindFunction(const char* name);

// The status of a call without a loaded runtime, and its text.
inline constexpr int kNoRuntime = 100;  // hipErrorNoDevice
inline constexpr const char* kNoRuntimeText =
    "no HIP runtime is loaded in this process, expected libamdhip64.so of a torch for ROCm";

}  // namespace vllm::gpu::hip
