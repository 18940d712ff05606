// SPDX-License-Identifier: Apache-2.0
// Products of a few rows of activations with a weight, for ROCm. Such a product takes as long as
// reading the weight, so the kernels read it once, in whole cache lines, and multiply without
// matrix instructions.
//
// Sums are accumulated in float32 and rounded once. Their order depends on the weight's shape, the
// type of product and `compute_units`, not on the number of rows: a row of activations has the same
// result alone and among others.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm {

// out[n, m] = sum over k of activations[n, k] * weight[m, k], plus bias[n, m].
struct FewRows {
  DType type = DType::kBFloat16;  // of out and bias: bfloat16 or float16
  int64_t rows = 0;               // n
  int64_t columns = 0;            // m
  int64_t depth = 0;              // k, below 2^31
  // The elements of a row are adjacent. Strides are in elements, those of an int4 weight in bytes.
  const void* activations = nullptr;
  int64_t activation_stride = 0;
  const void* weight = nullptr;
  int64_t weight_stride = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  const void* bias = nullptr;  // may be null
  int64_t bias_row_stride = 0;
  int64_t bias_column_stride = 0;
  // The number of compute units to fill with work.
  int64_t compute_units = 1;
};

// Activations and weight have the type of `out`.
void MultiplyFewRows(const char* op, const FewRows& product);

// Returns the number of parts into which MultiplyFewRowsInParts divides the depth.
int64_t CountParts(const FewRows& product);
// The same product, of which different thread blocks compute parts of the sums. `partial` has
// room for CountParts() * rows * columns float32; with one part it is not used. The parts are
// added in order.
void MultiplyFewRowsInParts(const char* op, const FewRows& product, float* partial);

// Codes of eight-bit floating-point numbers: torch.float8_e4m3fn, or torch.float8_e4m3fnuz, which
// has half the values, no negative zero, and NaN in its place.
enum class Fp8Code { kE4M3FN, kE4M3FNUZ };

// Activations and weight are eight-bit floating-point numbers. The sums are multiplied by
// *activation_scale times *weight_scale, which lie in the memory of the device.
void MultiplyFewRowsFp8(const char* op, const FewRows& product, Fp8Code code,
                        const float* activation_scale, const float* weight_scale);

enum class ZeroPointType { kNone, kPacked, kFloating };

// How an int4 weight is packed and quantised. Eight elements of a row share four bytes: of the
// little-endian word, bits 4p to 4p + 3 are element 2p, and bits 4p + 16 to 4p + 19 element 2p + 1.
// An element q of group g in row m means (q - zero[m, g]) * scale[m, g].
struct Int4Weight {
  int group_bits = 0;  // a group has 1 << group_bits adjacent elements; 31 for a whole row
  const void* scales = nullptr;  // of the type of out
  int64_t scale_stride = 0;
  // kNone: the zero point is 8. kPacked: four bits each, those of eight adjacent rows in a word;
  // zero_stride is that of eight rows, in words. kFloating: numbers of the type of out.
  ZeroPointType zero_type = ZeroPointType::kNone;
  const void* zeros = nullptr;
  int64_t zero_stride = 0;
};

// Activations have the type of `out`. The depth is a multiple of 16.
void MultiplyFewRowsInt4(const char* op, const FewRows& product, const Int4Weight& weight);

}  // namespace vllm
