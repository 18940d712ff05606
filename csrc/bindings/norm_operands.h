// SPDX-License-Identifier: Apache-2.0
// Checks that normalising ops with quantised results share.
#pragma once

#include <optional>
#include <string>

#include "bindings/quantized.h"

namespace vllm {

inline const void* CheckedWeight(const char* op, const Tensor& tensor, const Argument& input) {
  const Argument weight(op, "weight", tensor);
  weight.OnDevice().SameDTypeAs(input).HasShape({input.shape().back()}, "the last dimension of input").LastDimensionContiguous();
  return tensor.data_ptr();
}

inline Rows CheckedResidual(const char* op, const Tensor& tensor, const Argument& input) {
  const Argument residual(op, "residual", tensor);
  residual.OnDevice().SameDTypeAs(input).HasShape(input.shape(), "that of input").LastDimensionContiguous().Writable();
  return residual.LastDimensionRows();
}

// float8_e4m3fn, float8_e5m2 or int8.
inline QType CheckedCode(const Argument& result) {
  using torch::headeronly::ScalarType;
  const ScalarType found = result.tensor().scalar_type();
  if (found != ScalarType::Float8_e4m3fn && found != ScalarType::Float8_e5m2 && found != ScalarType::Char) {
    result.Fail(std::string("is of dtype ") + torch::headeronly::toString(found), "Float8_e4m3fn, Float8_e5m2 or Char");
  }
  return found == ScalarType::Char ? QType::kInt8 : CheckedFp8(result);
}

// Null without a bound.
inline const float* CheckedBound(const char* op, const std::optional<Tensor>& tensor, QType type) {
  if (!tensor.has_value()) return nullptr;
  const Argument bound(op, "scale_ub", *tensor);
  if (type == QType::kInt8) bound.Fail("is given with a result of dtype Char", "none, or a result of float8");
  return CheckedScalar(bound);
}

}  // namespace vllm
