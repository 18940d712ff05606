// SPDX-License-Identifier: Apache-2.0
#include "gemm/scaled_mm.h"

#include <limits>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;
using MaybeTensor = std::optional<Tensor>;

// Tensor cores consume elements in groups of this size.
constexpr int64_t kGroup = 16;
constexpr int64_t kAlignment = 16;
// The sum of this many products of int8 fits into int32.
constexpr int64_t kMaxInt8Depth = 131071;

void CheckSizes(const Argument& argument, const char* shape) {
  argument.CheckRank(2, shape);
  for (const int64_t size : argument.shape()) {
    if (size > std::numeric_limits<int>::max())
      argument.FailShape("less than 2^31 rows and columns");
  }
}

// Checks that the elements along one dimension are adjacent and those along the other `step`
// elements apart, where `step` is a multiple of 16. Returns `step`.
int64_t CheckStrides(const Argument& argument, size_t inner, const char* order) {
  const Extents shape = argument.shape(), strides = argument.strides();
  const size_t outer = 1 - inner;
  if (shape[0] == 0 || shape[1] == 0) return 0;
  // The stride of a dimension with one element is meaningless.
  if (shape[inner] > 1 && strides[inner] != 1) {
    argument.FailStrides(std::string(order) + ": stride 1 in dimension " + std::to_string(inner));
  }
  if (shape[outer] <= 1) return (shape[inner] + kGroup - 1) / kGroup * kGroup;
  if (strides[outer] % kGroup != 0 || strides[outer] < shape[inner]) {
    argument.FailStrides(std::string(order) + ": in dimension " + std::to_string(outer) +
                         " a multiple of 16, at least " + std::to_string(shape[inner]));
  }
  return strides[outer];
}

// Checks `count` adjacent elements, in a vector or in a matrix with one row or column.
const void* CheckVector(const Argument& argument, ScalarType type, int64_t count,
                        const std::string& what) {
  argument.CheckOnDevice().CheckDType(type);
  if (argument.tensor().numel() != count) argument.FailShape(what + ", " + std::to_string(count));
  return argument.CheckContiguous().tensor().data_ptr();
}

// Checks one number for each of `count`, or one for all, and sets `each` accordingly.
const float* CheckScales(const Argument& argument, int64_t count, const char* what, bool& each) {
  each = argument.tensor().numel() != 1;
  return static_cast<const float*>(CheckVector(argument, ScalarType::Float, each ? count : 1,
                                               std::string("one element or ") + what));
}

ScaledMm CheckProduct(const char* op, const Tensor& out_tensor, const Tensor& a_tensor,
                      const Tensor& b_tensor, const Tensor& a_scales_tensor,
                      const Tensor& b_scales_tensor, const MaybeTensor& bias_tensor) {
  const Argument a(op, "a", a_tensor), b(op, "b", b_tensor), out(op, "out", out_tensor);
  a.CheckOnDevice().CheckDTypeIn({ScalarType::Char, ScalarType::Float8_e4m3fn});
  b.CheckOnDevice().CheckSameDType(a);
  out.CheckOnDevice().CheckDTypeIn({ScalarType::BFloat16, ScalarType::Half});
  const ScalarType type = a.scalar_type();
  CheckSizes(a, "[M, K]");
  CheckSizes(b, "[K, N]");
  CheckSizes(out, "[M, N]");
  const int64_t rows = a.shape()[0], depth = a.shape()[1], columns = b.shape()[1];
  if (depth == 0 || depth % kGroup != 0) a.FailShape("[M, K] with K a multiple of 16");
  if (type == ScalarType::Char && depth > kMaxInt8Depth) {
    a.FailShape("[M, K] with K of at most " + std::to_string(kMaxInt8Depth) +
                ", so that sums fit into int32");
  }
  if (columns % kGroup != 0) b.FailShape("[K, N] with N a multiple of 16");
  b.CheckShape({depth, columns}, "[K, N] with the K of a");
  out.CheckShape({rows, columns}, "[M, N] with the M of a and the N of b").CheckWritable();

  ScaledMm product;
  product.type = type == ScalarType::Char ? QType::kInt8 : QType::kE4M3;
  product.out_type = out.dtype();
  product.rows = static_cast<int>(rows);
  product.columns = static_cast<int>(columns);
  product.depth = static_cast<int>(depth);
  product.a_stride = CheckStrides(a, 1, "adjacent elements in rows");
  product.b_stride = CheckStrides(b, 0, "adjacent elements in columns");
  product.out_stride = CheckStrides(out, 1, "adjacent elements in rows");
  for (const Argument* argument : {&a, &b, &out}) argument->CheckAligned(kAlignment);
  product.a = a_tensor.data_ptr();
  product.b = b_tensor.data_ptr();
  product.out = out_tensor.data_ptr();
  product.a_scales = CheckScales(Argument(op, "a_scales", a_scales_tensor), rows,
                                 "one for each row of a", product.a_scale_per_row);
  product.b_scales = CheckScales(Argument(op, "b_scales", b_scales_tensor), columns,
                                 "one for each column of b", product.b_scale_per_column);
  if (bias_tensor.has_value())
    product.bias = CheckVector(Argument(op, "bias", *bias_tensor), out.scalar_type(), columns,
                               "one for each column of b");
  return product;
}

void ScaledMmOp(Tensor out, Tensor a, Tensor b, Tensor a_scales, Tensor b_scales,
                MaybeTensor bias) {
  ScaledMatMul(CheckProduct("cutlass_scaled_mm", out, a, b, a_scales, b_scales, bias));
}

void ScaledMmAzpOp(Tensor out, Tensor a, Tensor b, Tensor a_scales, Tensor b_scales, Tensor azp_adj,
                   MaybeTensor azp, MaybeTensor bias) {
  const char* op = "cutlass_scaled_mm_azp";
  Argument(op, "a", a).CheckDType(ScalarType::Char);
  ScaledMm product = CheckProduct(op, out, a, b, a_scales, b_scales, bias);
  product.zero_sums =
      static_cast<const int32_t*>(CheckVector(Argument(op, "azp_adj", azp_adj), ScalarType::Int,
                                              product.columns, "one for each column of b"));
  if (azp.has_value()) {
    product.zeros = static_cast<const int32_t*>(CheckVector(
        Argument(op, "azp", *azp), ScalarType::Int, product.rows, "one for each row of a"));
  }
  ScaledMatMul(product);
}

bool SupportsFp8(int64_t capability) { return SupportsScaledMm(QType::kE4M3, capability); }

// There are no kernels for blockwise scales of A and B.
bool SupportsBlockFp8(int64_t) { return false; }

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "cutlass_scaled_mm(Tensor! out, Tensor a, Tensor b, Tensor a_scales, Tensor b_scales, "
      "Tensor? bias) -> ()");
  m.def(
      "cutlass_scaled_mm_azp(Tensor! out, Tensor a, Tensor b, Tensor a_scales, Tensor b_scales, "
      "Tensor azp_adj, Tensor? azp, Tensor? bias) -> ()");
  m.def("cutlass_scaled_mm_supports_fp8(int cuda_device_capability) -> bool");
  m.def("cutlass_scaled_mm_supports_block_fp8(int cuda_device_capability) -> bool");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("cutlass_scaled_mm", VLLM_BOX(vllm::ScaledMmOp));
  m.impl("cutlass_scaled_mm_azp", VLLM_BOX(vllm::ScaledMmAzpOp));
}
// No tensor argument selects a dispatch key.
STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) {
  m.impl("cutlass_scaled_mm_supports_fp8", TORCH_BOX(&vllm::SupportsFp8));
  m.impl("cutlass_scaled_mm_supports_block_fp8", TORCH_BOX(&vllm::SupportsBlockFp8));
}
