// SPDX-License-Identifier: Apache-2.0
// What becomes of CUTLASS's answers.
#pragma once

#include <cuda_runtime.h>

#include <cutlass/cutlass.h>

#include <stdexcept>
#include <string>

#include "core/gpu/launch.h"

namespace vllm {

// Throws std::runtime_error unless all went well: with the toolkit's words for the launch, if it
// has any, and CUTLASS's otherwise.
inline void CheckCutlass(cutlass::Status status) {
  if (status == cutlass::Status::kSuccess) return;
  const cudaError_t error = cudaPeekAtLastError();
  if (error != cudaSuccess)
    gpu::FailLaunch("cutlass_scaled_mm", static_cast<int>(error), gpu::kArchitectures);
  throw std::runtime_error(std::string("cutlass_scaled_mm: CUTLASS refuses the product: ") +
                           cutlass::cutlassGetStatusString(status));
}

}  // namespace vllm
