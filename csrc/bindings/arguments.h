// SPDX-License-Identifier: Apache-2.0
// Checks of op arguments. Every failure is a std::runtime_error (RuntimeError in Python) that names the op, the argument, what it is and
// what it should be.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/HeaderOnlyArrayRef.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "core/device.h"
#include "core/dtype.h"
#include "core/rows.h"

namespace vllm {

using torch::stable::Tensor;
// Sizes or strides, in the memory of a tensor or of the caller.
using Extents = torch::headeronly::IntHeaderOnlyArrayRef;

// "[2, 3]"
std::string ShapeText(Extents shape);

// A tensor argument under inspection. Each check returns the argument itself or throws.
class Argument {
 public:
  Argument(const char* op, const char* name, const Tensor& tensor);

  [[noreturn]] void Fail(const std::string& found, const std::string& expected) const;

  // It lies in the memory of the device that the library is for.
  const Argument& OnDevice() const;
  // It lies in CPU memory, whatever the device.
  const Argument& OnHost() const;
  // It lies in one of the two.
  const Argument& OnDeviceOrHost() const;
  // float32, bfloat16 or float16.
  const Argument& Floating() const;
  const Argument& OfDType(torch::headeronly::ScalarType expected) const;
  const Argument& SameDTypeAs(const Argument& other) const;
  // `why` completes the message: "expected [2, 4]: <why>".
  const Argument& HasShape(Extents expected, std::string_view why) const;
  // At least one dimension, the elements of the last one side by side.
  const Argument& LastDimensionContiguous() const;
  // No two elements share memory through a stride of zero: results are written here.
  const Argument& Writable() const;

  DType dtype() const;
  Extents shape() const { return shape_; }
  Extents strides() const { return strides_; }
  const Tensor& tensor() const { return tensor_; }

  // Rows of the last dimension. Throws when more than Rows::kMaxDims leading dimensions are left after merging.
  Rows LastDimensionRows() const;
  // One row of everything when the tensor is contiguous, else rows of the last dimension.
  Rows LongestRows() const;
  // Rows of `width` elements, one for each index of the first `leading` dimensions.
  Rows LeadingRows(size_t leading, int64_t width) const;

 private:
  const char* op_;
  const char* name_;
  Tensor tensor_;
  Extents shape_;  // in the memory of tensor_
  Extents strides_;
};

}  // namespace vllm
