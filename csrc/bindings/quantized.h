// SPDX-License-Identifier: Apache-2.0
// Checks of arguments that quantising ops share.
#pragma once

#include <optional>
#include <string>

#include "bindings/arguments.h"
#include "core/gpu/stream.h"

namespace vllm {

// Returns torch's dtype of E4M3 on the current device.
inline torch::headeronly::ScalarType GetE4M3() {
  using torch::headeronly::ScalarType;
#if defined(VLLM_DEVICE_ROCM)
  if (gpu::HasFnuz()) return ScalarType::Float8_e4m3fnuz;
#endif
  return ScalarType::Float8_e4m3fn;
}

// Fails for the one of torch's dtypes of E4M3 that another device has.
inline const Argument& CheckOwnE4M3(const Argument& argument) {
  using torch::headeronly::ScalarType;
  const ScalarType own = GetE4M3(), type = argument.scalar_type();
  if (type != own && (type == ScalarType::Float8_e4m3fn || type == ScalarType::Float8_e4m3fnuz)) {
    argument.Fail(std::string("is of dtype ") + torch::headeronly::toString(type),
                  std::string(torch::headeronly::toString(own)) + ", the format of this device");
  }
  return argument;
}

// Checks that the dtype is that of E4M3 or float8_e5m2.
inline QType CheckFp8(const Argument& argument) {
  using torch::headeronly::ScalarType;
  const ScalarType own = GetE4M3();
  CheckOwnE4M3(argument).CheckDTypeIn({own, ScalarType::Float8_e5m2});
  return argument.scalar_type() == own ? QType::kE4M3 : QType::kE5M2;
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

// Like CheckQuantized(), but a result with two dimensions may have more rows than the input. Ops
// leave them alone. Returns the rows of the result that belong to the input.
inline Rows CheckPaddedQuantized(const Argument& result, const Argument& input) {
  input.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous();
  const Extents shape = input.shape(), wider = result.shape();
  const bool padded =
      shape.size() == 2 && wider.size() == 2 && wider[0] > shape[0] && wider[1] == shape[1];
  result.CheckOnDevice();
  if (!padded) result.CheckShape(shape, "the shape of input, or more rows");
  result.CheckLastDimensionContiguous().CheckWritable();
  Rows rows = result.GetLastDimensionRows();
  if (padded) rows.count = rows.sizes[0] = shape[0];
  return rows;
}

}  // namespace vllm
