// SPDX-License-Identifier: Apache-2.0
// Packed weights behind numbers. A caller holds a number, never an address: one that was released or never given is found out.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hwy/aligned_allocator.h"

#include "core/dtype.h"
#include "gemm/int8.h"
#include "gemm/panels.h"

namespace vllm {

// Weights of floating-point numbers.
struct FloatWeights {
  Panels panels;
  hwy::AlignedFreeUniquePtr<unsigned char[]> memory;  // of panels.data
};

// Weights of int8, with what is known of the products that they are for.
struct Int8Weights {
  Int8Panels panels;
  std::vector<float> scales;  // one, or one for each column
  DType output = DType::kFloat32;
  bool scale_per_row = false;  // of A; else one for all rows
  bool has_zero = false;
};

// One of the two is set.
struct Weights {
  std::unique_ptr<const FloatWeights> floating;
  std::unique_ptr<const Int8Weights> int8;
};

// Keeps the weights until the number is released. Numbers start at 1 and do not come twice.
int64_t KeepWeights(std::shared_ptr<const Weights> weights);

// The weights behind a number, null for a number that stands for none. They stay as long as the pointer does, released or not.
std::shared_ptr<const Weights> FindWeights(int64_t number);

// Forgets the weights behind a number. Returns whether there were any.
bool ReleaseWeights(int64_t number);

}  // namespace vllm
