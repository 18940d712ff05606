// SPDX-License-Identifier: Apache-2.0
#include "bindings/flash_arguments.h"

#include <limits>
#include <stdexcept>

#include "bindings/new_tensor.h"

namespace vllm::flash {

using torch::headeronly::ScalarType;

[[noreturn]] void FailOp(const char* op, const std::string& what) { throw std::runtime_error(std::string(op) + ": " + what); }

int CheckedInt(const char* op, const char* name, int64_t value) {
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    FailOp(op, std::string(name) + " is " + std::to_string(value) + ", expected 0 to " + std::to_string(std::numeric_limits<int>::max()));
  }
  return static_cast<int>(value);
}

void CheckMatrix(const Argument& argument, size_t dims) {
  argument.OnDevice().LastDimensionContiguous();
  const ScalarType type = argument.tensor().scalar_type();
  if (type != ScalarType::BFloat16 && type != ScalarType::Half) {
    argument.Fail(std::string("is of dtype ") + torch::headeronly::toString(type), "BFloat16 or Half");
  }
  if (argument.shape().size() != dims) argument.Fail("has shape " + ShapeText(argument.shape()), std::to_string(dims) + " dimensions");
  bool aligned = reinterpret_cast<uintptr_t>(argument.tensor().data_ptr()) % (2 * kLoad) == 0;
  for (size_t i = 0; i + 1 < dims; ++i) aligned = aligned && (argument.shape()[i] < 2 || argument.strides()[i] % kLoad == 0);
  if (!aligned) argument.Fail("has strides " + ShapeText(argument.strides()), "rows that begin at multiples of 16 bytes");
}

void CheckMatrix(const Argument& argument, size_t dims, const Argument& q) {
  CheckMatrix(argument, dims);
  argument.SameDTypeAs(q);
}

int* CheckedInts(const Argument& argument, int64_t count, std::string_view why) {
  argument.OnDevice().OfDType(ScalarType::Int).HasShape({count}, why).LastDimensionContiguous();
  return static_cast<int*>(argument.tensor().data_ptr());
}

Tensor OutputOf(const char* op, const Argument& q, const std::optional<Tensor>& out) {
  if (!out.has_value()) {
    const Extents shape = q.shape();
    const ScalarType dtype = q.tensor().scalar_type();
    if (shape.size() == 3) return NewTensor<3>(q.tensor(), {shape[0], shape[1], shape[2]}, dtype);
    return NewTensor<4>(q.tensor(), {shape[0], shape[1], shape[2], shape[3]}, dtype);
  }
  const Argument given(op, "out", *out);
  CheckMatrix(given, q.shape().size(), q);
  given.HasShape(q.shape(), "the shape of q").Writable();
  return *out;
}

}  // namespace vllm::flash
