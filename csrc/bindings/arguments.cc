// SPDX-License-Identifier: Apache-2.0
#include "bindings/arguments.h"

#include <algorithm>
#include <stdexcept>

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

std::string FormatDType(ScalarType type) { return torch::headeronly::toString(type); }

// Returns "Float, BFloat16 or Half".
std::string ListDTypes(std::initializer_list<ScalarType> types) {
  std::string text;
  size_t left = types.size();
  for (const ScalarType type : types) {
    text += FormatDType(type);
    --left;
    if (left > 0) text += left == 1 ? " or " : ", ";
  }
  return text;
}

bool Contains(std::initializer_list<ScalarType> types, ScalarType type) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

bool IsMultiple(const void* address, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) == 0;
}

}  // namespace

DType ToDType(ScalarType type) {
  switch (type) {
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      return DType::kFloat32;
  }
}

void FailOp(const char* op, const std::string& what) {
  throw std::runtime_error(std::string(op) + ": " + what);
}

void CheckAtLeast(const char* op, const char* name, int64_t value, int64_t least) {
  if (value >= least) return;
  FailOp(op, std::string(name) + " is " + std::to_string(value) + ", expected at least " +
                 std::to_string(least));
}

void CheckDType(const char* op, const char* name, ScalarType dtype,
                std::initializer_list<ScalarType> expected) {
  if (!Contains(expected, dtype))
    FailOp(op,
           std::string(name) + " is " + FormatDType(dtype) + ", expected " + ListDTypes(expected));
}

std::string FormatShape(Extents shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

Argument::Argument(const char* op, const char* name, const Tensor& tensor)
    : op_(op), name_(name), tensor_(tensor), shape_(tensor.sizes()), strides_(tensor.strides()) {}

void Argument::Fail(const std::string& found, const std::string& expected) const {
  FailOp(op_, std::string(name_) + " " + found + ", expected " + expected);
}

void Argument::FailShape(const std::string& expected) const {
  Fail("has shape " + FormatShape(shape_), expected);
}

void Argument::FailStrides(const std::string& expected) const {
  Fail("has strides " + FormatShape(strides_), expected);
}

const Argument& Argument::CheckOnDevice() const {
#if VLLM_ON_GPU && !defined(VLLM_GPU_EMULATION)
  if (!tensor_.is_cuda()) Fail("is not on the GPU", "all tensors on one device");
#else
  if (!tensor_.is_cpu()) Fail("is not on the CPU", "all tensors on one device");
#endif
  return *this;
}

const Argument& Argument::CheckOnHost() const {
  if (!tensor_.is_cpu()) Fail("is not on the CPU", "numbers that the CPU reads");
  return *this;
}

const Argument& Argument::CheckOnDeviceOrHost() const {
  return tensor_.is_cpu() ? *this : CheckOnDevice();
}

const Argument& Argument::CheckFloating() const {
  return CheckDTypeIn({ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
}

const Argument& Argument::CheckDType(ScalarType expected) const { return CheckDTypeIn({expected}); }

const Argument& Argument::CheckDTypeIn(std::initializer_list<ScalarType> expected) const {
  if (!Contains(expected, scalar_type()))
    Fail("is of dtype " + FormatDType(scalar_type()), ListDTypes(expected));
  return *this;
}

const Argument& Argument::CheckSameDType(const Argument& other) const {
  if (tensor_.scalar_type() != other.tensor_.scalar_type()) {
    Fail("is of dtype " + FormatDType(tensor_.scalar_type()),
         FormatDType(other.tensor_.scalar_type()) + ", the dtype of " + other.name_);
  }
  return *this;
}

const Argument& Argument::CheckShape(Extents expected, std::string_view why) const {
  if (shape_ != expected) FailShape(FormatShape(expected) + ": " + std::string(why));
  return *this;
}

const Argument& Argument::CheckRank(size_t rank, std::string_view shape) const {
  if (shape_.size() != rank) FailShape(std::string(shape));
  return *this;
}

const Argument& Argument::CheckMinLength(int64_t least, std::string_view why) const {
  if (shape_.size() != 1 || shape_[0] < least) {
    FailShape("one dimension of at least " + std::to_string(least) +
              " elements: " + std::string(why));
  }
  return *this;
}

const Argument& Argument::CheckOneElement() const {
  if (tensor_.numel() != 1) FailShape("one element");
  return *this;
}

const Argument& Argument::CheckLastDimensionContiguous() const {
  if (shape_.empty()) Fail("has no dimension", "at least one");
  if (shape_.back() > 1 && strides_.back() != 1) {
    FailStrides("stride 1 in the last dimension");
  }
  return *this;
}

const Argument& Argument::CheckContiguous() const {
  if (!tensor_.is_contiguous()) FailStrides("a contiguous tensor");
  return *this;
}

const Argument& Argument::CheckAligned(int64_t bytes) const {
  if (!IsMultiple(tensor_.data_ptr(), bytes)) {
    Fail("begins at address " + std::to_string(reinterpret_cast<uintptr_t>(tensor_.data_ptr())),
         "a multiple of " + std::to_string(bytes) + " bytes");
  }
  return *this;
}

const Argument& Argument::CheckRowsAligned(int64_t bytes) const {
  CheckLastDimensionContiguous();
  const int64_t elements = bytes / static_cast<int64_t>(tensor_.element_size());
  bool aligned = IsMultiple(tensor_.data_ptr(), bytes);
  for (size_t i = 0; i + 1 < shape_.size(); ++i)
    aligned = aligned && (shape_[i] < 2 || strides_[i] % elements == 0);
  if (!aligned) FailStrides("rows that begin at multiples of " + std::to_string(bytes) + " bytes");
  return *this;
}

const Argument& Argument::CheckWritable() const {
  for (size_t i = 0; i < shape_.size(); ++i) {
    if (shape_[i] > 1 && strides_[i] == 0) FailStrides("separate memory for each element");
  }
  return *this;
}

std::vector<float> Argument::ToFloats() const {
  std::vector<float> values(static_cast<size_t>(shape_[0]));
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * strides_[0];
    switch (dtype()) {
      case DType::kFloat32:
        values[i] = Data<const float>()[at];
        break;
      case DType::kBFloat16:
        values[i] = Data<const torch::headeronly::BFloat16>()[at];
        break;
      case DType::kFloat16:
        values[i] = Data<const torch::headeronly::Half>()[at];
        break;
    }
  }
  return values;
}

Rows Argument::GetLeadingRows(size_t leading, int64_t width) const {
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
      FailStrides("at most " + std::to_string(Rows::kMaxDims) +
                  " leading dimensions after merging");
    } else {
      rows.sizes[rows.dims] = size;
      rows.strides[rows.dims] = strides_[i];
      ++rows.dims;
    }
  }
  return rows;
}

Rows Argument::GetLastDimensionRows() const {
  return GetLeadingRows(shape_.size() - 1, shape_.back());
}

Rows Argument::GetLongestRows() const {
  return tensor_.is_contiguous() ? GetLeadingRows(0, tensor_.numel()) : GetLastDimensionRows();
}

}  // namespace vllm
