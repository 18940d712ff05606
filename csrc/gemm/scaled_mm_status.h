// SPDX-License-Identifier: Apache-2.0
// Converts CUTLASS's status codes to errors.
#pragma once

#include <cuda_runtime.h>

#include <cutlass/cutlass.h>

#include <stdexcept>
#include <string>

#include "core/gpu/launch.h"

namespace vllm {

// Throws std::runtime_error unless `status` is success: with the toolkit's message about the
// launch, if there is one, and CUTLASS's otherwise.
inline void CheckCutlass(cutlass::Status status) {
  if (status == cutlass::Status::kSuccess) return;
  const cudaError_t error = cudaPeekAtLastError();
  if (error != cudaSuccess)
    gpu::FailLaunch("cutlass_scaled_mm", static_cast<int>(error), gpu::kArchitectures);
  throw std::runtime_error(std::string("cutlass_scaled_mm: CUTLASS refuses the product: ") +
                           cutlass::cutlassGetStatusString(status));
}

}  // namespace vllm
