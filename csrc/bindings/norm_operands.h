// SPDX-License-Identifier: Apache-2.0
// Checks for normalising ops with quantised results.
#pragma once

#include <optional>
#include <string>

#include "bindings/quantized.h"

namespace vllm {

inline const void* CheckWeight(const char* op, const Tensor& tensor, const Argument& input) {
  const Argument weight(op, "weight", tensor);
  weight.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape({input.shape().back()}, "the last dimension of input")
      .CheckLastDimensionContiguous();
  return tensor.data_ptr();
}

inline Rows CheckResidual(const char* op, const Tensor& tensor, const Argument& input) {
  const Argument residual(op, "residual", tensor);
  residual.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape(input.shape(), "the shape of input")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  return residual.GetLastDimensionRows();
}

// Checks that the result has the dtype of E4M3, float8_e5m2 or int8.
inline QType CheckCode(const Argument& result) {
  using torch::headeronly::ScalarType;
  CheckOwnE4M3(result).CheckDTypeIn({GetE4M3(), ScalarType::Float8_e5m2, ScalarType::Char});
  return result.scalar_type() == ScalarType::Char ? QType::kInt8 : CheckFp8(result);
}

// Returns null without a bound.
inline const float* CheckBound(const char* op, const std::optional<Tensor>& tensor, QType type) {
  if (!tensor.has_value()) return nullptr;
  const Argument bound(op, "scale_ub", *tensor);
  if (type == QType::kInt8)
    bound.Fail("is given with a result of dtype Char", "none, or a float8 result");
  return CheckScalar(bound);
}

}  // namespace vllm
