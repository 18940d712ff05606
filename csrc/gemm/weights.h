// SPDX-License-Identifier: Apache-2.0
// Packed weights of matrix products, which callers hold by number (core/handles.h).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hwy/aligned_allocator.h"

#include "core/dtype.h"
#include "gemm/int8.h"
#include "gemm/panels.h"

namespace vllm {

// Floating-point weights.
struct FloatWeights {
  Panels panels;
  hwy::AlignedFreeUniquePtr<unsigned char[]> memory;  // of panels.data
};

// int8 weights, with the known parameters of their products.
struct Int8Weights {
  Int8Panels panels;
  std::vector<float> scales;  // one, or one for each column
  DType output = DType::kFloat32;
  bool scale_per_row = false;  // of A; else one for all rows
  bool has_zero = false;
};

// Exactly one of the two is set.
struct Weights {
  std::unique_ptr<const FloatWeights> floating;
  std::unique_ptr<const Int8Weights> int8;
};

}  // namespace vllm
