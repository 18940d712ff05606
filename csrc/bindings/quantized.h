// SPDX-License-Identifier: Apache-2.0
// Checks of the arguments that quantising ops share.
#pragma once

#include <optional>

#include "bindings/arguments.h"

namespace vllm {

// float8_e4m3fn or float8_e5m2.
inline QType CheckedFp8(const Argument& argument) {
  using torch::headeronly::ScalarType;
  const ScalarType type = argument.tensor().scalar_type();
  if (type == ScalarType::Float8_e4m3fn) return QType::kE4M3;
  if (type != ScalarType::Float8_e5m2) {
    argument.Fail(std::string("is of dtype ") + torch::headeronly::toString(type), "Float8_e4m3fn or Float8_e5m2");
  }
  return QType::kE5M2;
}

// One float32, where it lies: kernels read it.
inline const float* CheckedScalar(const Argument& argument) {
  argument.OnDevice().OfDType(torch::headeronly::ScalarType::Float);
  if (argument.tensor().numel() != 1) argument.Fail("has shape " + ShapeText(argument.shape()), "one element");
  return static_cast<const float*>(argument.tensor().data_ptr());
}

// Memory for a number for each of `tokens` rows, side by side.
template <typename T>
T* CheckedPerToken(const Argument& argument, torch::headeronly::ScalarType type, int64_t tokens) {
  argument.OnDevice().OfDType(type);
  if (!argument.tensor().is_contiguous() || argument.tensor().numel() < tokens) {
    argument.Fail("has shape " + ShapeText(argument.shape()) + " and strides " + ShapeText(argument.strides()),
                  "a contiguous tensor of " + std::to_string(tokens) + " elements, one for each token");
  }
  return static_cast<T*>(argument.tensor().data_ptr());
}

// Result and input of a quantising op: the same shape, rows side by side in their last dimension.
inline void CheckQuantized(const Argument& result, const Argument& input) {
  input.OnDevice().Floating().LastDimensionContiguous();
  result.OnDevice().HasShape(input.shape(), "that of input").LastDimensionContiguous().Writable();
}

}  // namespace vllm
