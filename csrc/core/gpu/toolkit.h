// SPDX-License-Identifier: Apache-2.0
// The toolkit's runtime functions, whose names differ between CUDA and HIP only in their prefix,
// and their errors.
#pragma once

#include <stdexcept>
#include <string>

#include "core/gpu/gpu.h"

#if defined(__HIPCC__)
#define VLLM_GPU_RUNTIME(name) hip##name
#else
#define VLLM_GPU_RUNTIME(name) cuda##name
#endif

namespace vllm::gpu {

// Throws std::runtime_error with `what` and the toolkit's message.
[[noreturn]] inline void FailRuntime(VLLM_GPU_RUNTIME(Error_t) error, const std::string& what) {
  // Clears the error: the runtime would report it again for the next call.
  (void)VLLM_GPU_RUNTIME(GetLastError)();
  throw std::runtime_error(what + ": " + VLLM_GPU_RUNTIME(GetErrorString)(error));
}

inline void CheckRuntime(VLLM_GPU_RUNTIME(Error_t) error, const char* what) {
  if (error != VLLM_GPU_RUNTIME(Success)) FailRuntime(error, what);
}

}  // namespace vllm::gpu
