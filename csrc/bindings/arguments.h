// SPDX-License-Identifier: Apache-2.0
// Checks of op arguments. A failed check throws std::runtime_error (RuntimeError in Python) that
// names the op and the argument, and says what it is and what was expected. Ops must use these
// checks where one exists, and not define their own.
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
// Sizes or strides; refers to the memory of a tensor or of the caller.
using Extents = torch::headeronly::IntHeaderOnlyArrayRef;

// Returns "[2, 3]".
std::string FormatShape(Extents shape);

// Returns kFloat32 for types that kernels do not accept as floating-point numbers.
DType ToDType(torch::headeronly::ScalarType type);

// Throws "<op>: <what>".
[[noreturn]] void FailOp(const char* op, const std::string& what);
// Checks that a number is at least `least`.
void CheckAtLeast(const char* op, const char* name, int64_t value, int64_t least);
// Checks that a dtype is one of `expected`.
void CheckDType(const char* op, const char* name, torch::headeronly::ScalarType dtype,
                std::initializer_list<torch::headeronly::ScalarType> expected);

// A tensor argument and its checks. Each check throws or returns the argument itself, so that
// checks can be chained.
class Argument {
 public:
  Argument(const char* op, const char* name, const Tensor& tensor);

  [[noreturn]] void Fail(const std::string& found, const std::string& expected) const;
  // Throws "... has shape [2, 3], expected ...".
  [[noreturn]] void FailShape(const std::string& expected) const;
  // Throws "... has strides [3, 1], expected ...".
  [[noreturn]] void FailStrides(const std::string& expected) const;

  // Checks that the tensor is in the memory of the device that the library is for.
  const Argument& CheckOnDevice() const;
  // Checks that it is in CPU memory, regardless of the library's device.
  const Argument& CheckOnHost() const;
  // Checks that it is in either of the two.
  const Argument& CheckOnDeviceOrHost() const;
  // Checks for float32, bfloat16 or float16.
  const Argument& CheckFloating() const;
  const Argument& CheckDType(torch::headeronly::ScalarType expected) const;
  const Argument& CheckDTypeIn(std::initializer_list<torch::headeronly::ScalarType> expected) const;
  const Argument& CheckSameDType(const Argument& other) const;
  // `why` completes the message: "expected [2, 4]: <why>".
  const Argument& CheckShape(Extents expected, std::string_view why) const;
  // Checks the number of dimensions. `shape` names them: "[tokens, experts]".
  const Argument& CheckRank(size_t rank, std::string_view shape) const;
  // Checks for one dimension of at least `least` elements.
  const Argument& CheckMinLength(int64_t least, std::string_view why) const;
  // Checks for one element, in any number of dimensions.
  const Argument& CheckOneElement() const;
  // Checks for at least one dimension, in the last of which elements are adjacent.
  const Argument& CheckLastDimensionContiguous() const;
  // Checks that all elements are adjacent and in order.
  const Argument& CheckContiguous() const;
  // Checks that the tensor begins at a multiple of `bytes` bytes.
  const Argument& CheckAligned(int64_t bytes) const;
  // Checks that the elements of the last dimension are adjacent, and that each of its rows begins
  // at a multiple of `bytes` bytes.
  const Argument& CheckRowsAligned(int64_t bytes) const;
  // Checks that no two elements share memory through a stride of zero: the tensor is written to.
  const Argument& CheckWritable() const;

  DType dtype() const { return ToDType(scalar_type()); }
  Extents shape() const { return shape_; }
  Extents strides() const { return strides_; }
  const Tensor& tensor() const { return tensor_; }
  torch::headeronly::ScalarType scalar_type() const { return tensor_.scalar_type(); }
  // Returns the first element as a T. The caller has checked the dtype.
  template <typename T>
  T* Data() const {
    return static_cast<T*>(tensor_.data_ptr());
  }

  // Returns the rows of the last dimension. Throws if more than Rows::kMaxDims leading dimensions
  // are left after merging.
  Rows GetLastDimensionRows() const;
  // Returns a single row if the tensor is contiguous, else the rows of the last dimension.
  Rows GetLongestRows() const;
  // Returns the elements of a vector as float32. The caller has called CheckFloating().
  std::vector<float> ToFloats() const;
  // Returns rows of `width` elements, one for each index of the first `leading` dimensions.
  Rows GetLeadingRows(size_t leading, int64_t width) const;

 private:
  const char* op_;
  const char* name_;
  Tensor tensor_;
  Extents shape_;  // refers to the memory of tensor_
  Extents strides_;
};

}  // namespace vllm
