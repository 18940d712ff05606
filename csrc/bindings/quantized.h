// SPDX-License-Identifier: Apache-2.0
// Checks of arguments that quantising ops share.
#pragma once

#include <optional>

#include "bindings/arguments.h"

namespace vllm {

// Checks that the dtype is float8_e4m3fn or float8_e5m2.
inline QType CheckFp8(const Argument& argument) {
  using torch::headeronly::ScalarType;
  argument.CheckDTypeIn({ScalarType::Float8_e4m3fn, ScalarType::Float8_e5m2});
  return argument.scalar_type() == ScalarType::Float8_e4m3fn ? QType::kE4M3 : QType::kE5M2;
}

// Checks one float32 and returns its address. The kernels read it.
inline const float* CheckScalar(const Argument& argument) {
  return argument.CheckOnDevice()
      .CheckDType(torch::headeronly::ScalarType::Float)
      .CheckOneElement()
      .Data<const float>();
}

// Checks memory for `tokens` adjacent numbers, one for each row.
template <typename T>
T* CheckPerToken(const Argument& argument, torch::headeronly::ScalarType type, int64_t tokens) {
  argument.CheckOnDevice().CheckDType(type);
  if (!argument.tensor().is_contiguous() || argument.tensor().numel() < tokens) {
    argument.Fail(
        "has shape " + FormatShape(argument.shape()) + " and strides " +
            FormatShape(argument.strides()),
        "a contiguous tensor of " + std::to_string(tokens) + " elements, one for each token");
  }
  return argument.Data<T>();
}

// Checks the result and input of a quantising op: they have the same shape, and the elements of
// their last dimension are adjacent.
inline void CheckQuantized(const Argument& result, const Argument& input) {
  input.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous();
  result.CheckOnDevice()
      .CheckShape(input.shape(), "the shape of input")
      .CheckLastDimensionContiguous()
      .CheckWritable();
}

}  // namespace vllm
