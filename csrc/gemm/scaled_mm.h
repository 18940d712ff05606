// SPDX-License-Identifier: Apache-2.0
// Scaled matrix products of eight-bit numbers on GPU tensor cores. Each unit of kernels registers
// itself here, so exactly the linked kernels are available.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm {

// out[m, n] = a_scale[m] * (b_scale[n] * (sum over k of a[m, k] * b[k, n], minus zero[m] *
// zero_sum[n])) + bias[n].
//
// Sums of int8 are exact: the depth is small enough for sums to fit into int32. Sums of
// float8_e4m3fn use only the tensor cores' own accumulators, without intermediate sums in float32.
// All further arithmetic is in float32 and rounded once. Memory, its rows (A and the result) and
// its columns (B) begin at multiples of 16 bytes; depth and columns are multiples of 16.
struct ScaledMm {
  QType type = QType::kInt8;          // of A and B: kInt8 or kE4M3
  DType out_type = DType::kBFloat16;  // of the result and the bias: kBFloat16 or kFloat16
  int rows = 0;
  int columns = 0;
  int depth = 0;
  void* out = nullptr;
  int64_t out_stride = 0;  // elements from row to row
  const void* a = nullptr;
  int64_t a_stride = 0;  // from row to row
  const void* b = nullptr;
  int64_t b_stride = 0;             // from column to column
  const float* a_scales = nullptr;  // one for each row, or one
  bool a_scale_per_row = false;
  const float* b_scales = nullptr;  // one for each column, or one
  bool b_scale_per_column = false;
  const void* bias = nullptr;          // one for each column, or null for zeros
  const int32_t* zeros = nullptr;      // one for each row, or null for ones
  const int32_t* zero_sums = nullptr;  // one for each column, or null for zeros; only for int8
};

// Throws std::runtime_error before a launch if no kernel supports the current device; the message
// lists the architectures that have kernels.
void ScaledMatMul(const ScaledMm& product);

// Returns whether there is a kernel for A and B of `type` and devices of compute capability
// `capability`: 90 for 9.0.
bool SupportsScaledMm(QType type, int64_t capability);

// The kernels of one unit.
struct ScaledMmKernels {
  QType type;
  DType out_type;
  // In nvcc's notation: "800,900".
  const char* architectures;
  // Whether code for an architecture runs on it only, and not on later ones of its major version.
  bool exact;
  // Throws std::runtime_error if the launch fails.
  void (*run)(const ScaledMm&);
};

// Call this before main() only.
void RegisterScaledMm(const ScaledMmKernels& kernels);

// [[maybe_unused]] avoids a warning of nvcc 11.8: variables of this type are never referenced.
struct ScaledMmRegistration {
  explicit ScaledMmRegistration(const ScaledMmKernels& kernels) { RegisterScaledMm(kernels); }
};

}  // namespace vllm
