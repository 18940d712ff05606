// SPDX-License-Identifier: Apache-2.0
// Products of matrices of eight-bit numbers with scales, on GPUs' tensor cores. What is linked
// decides which there are: each unit of kernels enters itself here.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm {

// out[m, n] = a_scale[m] * (b_scale[n] * (sum over k of a[m, k] * b[k, n], minus zero[m] *
// zero_sum[n])) + bias[n].
//
// Sums of int8 are exact: the depth is one whose sums fit into int32. Sums of float8_e4m3fn are
// those of the tensor cores' own accumulators, without sums in float32 on the way. What follows is
// in float32 and rounded once. Memory begins at multiples of 16 bytes and so do its rows (A and the
// result) and columns (B); depth and columns are multiples of 16.
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
  const int32_t* zero_sums = nullptr;  // one for each column, or null for zeros; int8 alone
};

// Throws std::runtime_error, before a launch, when no kernel serves the current device; it names
// the architectures there are kernels for.
void ScaledMatMul(const ScaledMm& product);

// Whether there is a kernel for A and B of `type` and devices of compute capability `capability`:
// 90 for 9.0.
bool SupportsScaledMm(QType type, int64_t capability);

// Kernels of one unit.
struct ScaledMmKernels {
  QType type;
  DType out_type;
  // As nvcc writes it: "800,900".
  const char* architectures;
  // Whether code for an architecture runs on that alone, and not on later ones of its major
  // version.
  bool exact;
  // Throws std::runtime_error when the launch fails.
  void (*run)(const ScaledMm&);
};

// Called before main() alone.
void RegisterScaledMm(const ScaledMmKernels& kernels);

// Nobody names a variable of this type, which nvcc 11.8 warns of unless it is [[maybe_unused]].
struct ScaledMmRegistration {
  explicit ScaledMmRegistration(const ScaledMmKernels& kernels) { RegisterScaledMm(kernels); }
};

}  // namespace vllm
