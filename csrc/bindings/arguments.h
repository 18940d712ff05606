// SPDX-License-Identifier: Apache-2.0
// Checks of op arguments. Every failure is a std::runtime_error (RuntimeError in Python) that names
// the op, the argument, what it is and what it should be. Ops define no checks of their own for
// what stands here.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/HeaderOnlyArrayRef.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/rows.h"

namespace vllm {

using torch::stable::Tensor;
// Sizes or strides, in the memory of a tensor or of the caller.
using Extents = torch::headeronly::IntHeaderOnlyArrayRef;

// "[2, 3]"
std::string ShapeText(Extents shape);

// kFloat32 for what kernels do not take as floating-point numbers.
DType ToDType(torch::headeronly::ScalarType type);

// Throws "<op>: <what>".
[[noreturn]] void FailOp(const char* op, const std::string& what);
// A number that is at least `least`.
void CheckAtLeast(const char* op, const char* name, int64_t value, int64_t least);
// One of the dtypes.
void CheckDType(const char* op, const char* name, torch::headeronly::ScalarType dtype,
                std::initializer_list<torch::headeronly::ScalarType> expected);

// A tensor argument under inspection. Each check returns the argument itself, so that checks can be
// chained, or throws.
class Argument {
 public:
  Argument(const char* op, const char* name, const Tensor& tensor);

  [[noreturn]] void Fail(const std::string& found, const std::string& expected) const;
  // "has shape [2, 3], expected ..."
  [[noreturn]] void FailShape(const std::string& expected) const;
  // "has strides [3, 1], expected ..."
  [[noreturn]] void FailStrides(const std::string& expected) const;

  // It lies in the memory of the device that the library is for.
  const Argument& OnDevice() const;
  // It lies in CPU memory, whatever the device.
  const Argument& OnHost() const;
  // It lies in one of the two.
  const Argument& OnDeviceOrHost() const;
  // float32, bfloat16 or float16.
  const Argument& Floating() const;
  const Argument& OfDType(torch::headeronly::ScalarType expected) const;
  const Argument& OfOneDType(std::initializer_list<torch::headeronly::ScalarType> expected) const;
  const Argument& SameDTypeAs(const Argument& other) const;
  // `why` completes the message: "expected [2, 4]: <why>".
  const Argument& HasShape(Extents expected, std::string_view why) const;
  // So many dimensions; `shape` names them: "[tokens, experts]".
  const Argument& HasRank(size_t rank, std::string_view shape) const;
  // One dimension of at least `least` elements.
  const Argument& HasAtLeast(int64_t least, std::string_view why) const;
  // One element, in any number of dimensions.
  const Argument& HasOneElement() const;
  // At least one dimension, the elements of the last one side by side.
  const Argument& LastDimensionContiguous() const;
  // All elements side by side, in order.
  const Argument& Contiguous() const;
  // Begins at a multiple of so many bytes.
  const Argument& Aligned(int64_t bytes) const;
  // The elements of the last dimension lie side by side, and all its rows begin at multiples of so
  // many bytes.
  const Argument& RowsAligned(int64_t bytes) const;
  // No two elements share memory through a stride of zero: results are written here.
  const Argument& Writable() const;

  DType dtype() const { return ToDType(scalar_type()); }
  Extents shape() const { return shape_; }
  Extents strides() const { return strides_; }
  const Tensor& tensor() const { return tensor_; }
  torch::headeronly::ScalarType scalar_type() const { return tensor_.scalar_type(); }
  // The first element, as a T; the caller has checked the dtype.
  template <typename T>
  T* Data() const {
    return static_cast<T*>(tensor_.data_ptr());
  }

  // Rows of the last dimension. Throws when more than Rows::kMaxDims leading dimensions are left
  // after merging.
  Rows LastDimensionRows() const;
  // One row of everything when the tensor is contiguous, else rows of the last dimension.
  Rows LongestRows() const;
  // The elements of a vector as float32; the caller has checked Floating().
  std::vector<float> ToFloats() const;
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
