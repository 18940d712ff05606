// SPDX-License-Identifier: Apache-2.0
#include "bindings/flash_arguments.h"

#include <limits>
#include <string>

#include "bindings/new_tensor.h"

namespace vllm::flash {

using torch::headeronly::ScalarType;

namespace {

// The number of elements that the kernels rotate at a time.
constexpr int64_t kRotaryUnit = 16;

}  // namespace

int CheckInt(const char* op, const char* name, int64_t value) {
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    FailOp(op, std::string(name) + " is " + std::to_string(value) + ", expected 0 to " +
                   std::to_string(std::numeric_limits<int>::max()));
  }
  return static_cast<int>(value);
}

void CheckHalves(const Argument& argument, size_t dims) {
  argument.CheckOnDevice().CheckLastDimensionContiguous().CheckDTypeIn(
      {ScalarType::BFloat16, ScalarType::Half});
  argument.CheckRank(dims, std::to_string(dims) + " dimensions").CheckRowsAligned(kLoadBytes);
}

void CheckHalves(const Argument& argument, size_t dims, const Argument& q) {
  CheckHalves(argument, dims);
  argument.CheckSameDType(q);
}

int* CheckInts(const Argument& argument, int64_t count, std::string_view why) {
  argument.CheckOnDevice()
      .CheckDType(ScalarType::Int)
      .CheckShape({count}, why)
      .CheckLastDimensionContiguous();
  return static_cast<int*>(argument.tensor().data_ptr());
}

void CheckHeadSize(const Argument& k, const Argument& q) {
  const int64_t size = q.shape().back();
  if (k.shape().back() != size) k.FailShape("the head size of q, " + std::to_string(size));
}

int64_t CountSequences(const Argument& starts) {
  if (starts.shape().size() != 1 || starts.shape()[0] < 1) starts.FailShape("[sequences + 1]");
  return starts.shape()[0] - 1;
}

void CheckBothOrNeither(const char* op, const char* name, const std::optional<Tensor>& tensor,
                        const char* other_name, const std::optional<Tensor>& other) {
  if (tensor.has_value() == other.has_value()) return;
  FailOp(op, std::string(name) + " or " + other_name + " is given alone, expected both or neither");
}

Tensor TakeOrMakeOutput(const char* op, const Argument& q, const std::optional<Tensor>& out) {
  if (!out.has_value()) {
    const Extents shape = q.shape();
    const ScalarType dtype = q.tensor().scalar_type();
    if (shape.size() == 3) return MakeTensor<3>(q.tensor(), {shape[0], shape[1], shape[2]}, dtype);
    return MakeTensor<4>(q.tensor(), {shape[0], shape[1], shape[2], shape[3]}, dtype);
  }
  const Argument given(op, "out", *out);
  CheckHalves(given, q.shape().size(), q);
  given.CheckShape(q.shape(), "the shape of q").CheckWritable();
  return *out;
}

int CheckRotation(const Argument& q, const Argument& cos, const Argument& sin, int head_size,
                  int keys) {
  CheckHalves(cos, 2, q);
  CheckHalves(sin, 2, q);
  sin.CheckShape(cos.shape(), "the shape of rotary_cos");
  const int64_t positions = cos.shape()[0], rotated = 2 * cos.shape()[1];
  if (rotated > head_size || rotated % kRotaryUnit != 0) {
    cos.Fail("rotates " + std::to_string(rotated) + " elements",
             "a multiple of 16 up to the head size, " + std::to_string(head_size));
  }
  if (positions < keys)
    cos.Fail("has " + std::to_string(positions) + " rows",
             "one for each row of the cache, " + std::to_string(keys));
  cos.CheckContiguous();
  sin.CheckContiguous();
  return static_cast<int>(rotated);
}

}  // namespace vllm::flash
