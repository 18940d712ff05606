// SPDX-License-Identifier: Apache-2.0
#include "bindings/arguments.h"

#include <stdexcept>

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

std::string DTypeText(ScalarType type) { return torch::headeronly::toString(type); }

}  // namespace

std::string ShapeText(Extents shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

Argument::Argument(const char* op, const char* name, const Tensor& tensor)
    : op_(op), name_(name), tensor_(tensor), shape_(tensor.sizes()), strides_(tensor.strides()) {}

void Argument::Fail(const std::string& found, const std::string& expected) const {
  throw std::runtime_error(std::string(op_) + ": " + name_ + " " + found + ", expected " + expected);
}

const Argument& Argument::OnDevice() const {
#if VLLM_ON_GPU && !defined(VLLM_GPU_EMULATION)
  if (!tensor_.is_cuda()) Fail("is not on the GPU", "all tensors on one device");
#else
  if (!tensor_.is_cpu()) Fail("is not on the CPU", "all tensors on one device");
#endif
  return *this;
}

const Argument& Argument::OnHost() const {
  if (!tensor_.is_cpu()) Fail("is not on the CPU", "numbers that the CPU reads");
  return *this;
}

const Argument& Argument::OnDeviceOrHost() const { return tensor_.is_cpu() ? *this : OnDevice(); }

const Argument& Argument::Floating() const {
  const ScalarType type = tensor_.scalar_type();
  if (type != ScalarType::Float && type != ScalarType::BFloat16 && type != ScalarType::Half) {
    Fail("is of dtype " + DTypeText(type), "Float, BFloat16 or Half");
  }
  return *this;
}

const Argument& Argument::OfDType(ScalarType expected) const {
  const ScalarType type = tensor_.scalar_type();
  if (type != expected) Fail("is of dtype " + DTypeText(type), DTypeText(expected));
  return *this;
}

const Argument& Argument::SameDTypeAs(const Argument& other) const {
  if (tensor_.scalar_type() != other.tensor_.scalar_type()) {
    Fail("is of dtype " + DTypeText(tensor_.scalar_type()), DTypeText(other.tensor_.scalar_type()) + ", the dtype of " + other.name_);
  }
  return *this;
}

const Argument& Argument::HasShape(Extents expected, std::string_view why) const {
  if (shape_ != expected) Fail("has shape " + ShapeText(shape_), ShapeText(expected) + ": " + std::string(why));
  return *this;
}

const Argument& Argument::LastDimensionContiguous() const {
  if (shape_.empty()) Fail("has no dimension", "at least one");
  if (shape_.back() > 1 && strides_.back() != 1) {
    Fail("has strides " + ShapeText(strides_), "stride 1 in the last dimension");
  }
  return *this;
}

const Argument& Argument::Writable() const {
  for (size_t i = 0; i < shape_.size(); ++i) {
    if (shape_[i] > 1 && strides_[i] == 0) Fail("has strides " + ShapeText(strides_), "memory of its own for every element");
  }
  return *this;
}

DType Argument::dtype() const {
  switch (tensor_.scalar_type()) {
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      return DType::kFloat32;
  }
}

Rows Argument::LeadingRows(size_t leading, int64_t width) const {
  Rows rows;
  rows.data = tensor_.data_ptr();
  rows.dtype = dtype();
  rows.width = width;
  rows.count = 1;
  rows.dims = 1;
  rows.sizes[0] = 1;
  for (size_t i = 0; i < leading; ++i) {
    const int64_t size = shape_[i];
    rows.count *= size;
    if (size == 1) continue;
    const int last = rows.dims - 1;
    if (rows.sizes[last] == 1) {
      rows.sizes[last] = size;
      rows.strides[last] = strides_[i];
    } else if (rows.strides[last] == size * strides_[i]) {
      rows.sizes[last] *= size;
      rows.strides[last] = strides_[i];
    } else if (rows.dims == Rows::kMaxDims) {
      Fail("has strides " + ShapeText(strides_), "at most " + std::to_string(Rows::kMaxDims) + " leading dimensions that do not merge");
    } else {
      rows.sizes[rows.dims] = size;
      rows.strides[rows.dims] = strides_[i];
      ++rows.dims;
    }
  }
  return rows;
}

Rows Argument::LastDimensionRows() const { return LeadingRows(shape_.size() - 1, shape_.back()); }

Rows Argument::LongestRows() const { return tensor_.is_contiguous() ? LeadingRows(0, tensor_.numel()) : LastDimensionRows(); }

}  // namespace vllm
