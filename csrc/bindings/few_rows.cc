// SPDX-License-Identifier: Apache-2.0
// Products of few rows, under upstream's names. in_a is the weight [M, K], in_b the activations
// [N, K]; results are [N, M].
#include "gemm/few_rows.h"

#include <initializer_list>
#include <limits>
#include <optional>
#include <string>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;
using MaybeTensor = std::optional<Tensor>;

// More rows are the work of a general matrix product.
constexpr int64_t kMostRows = 16;
constexpr int64_t kMostRowsInParts = 128;
// A step along the depth begins below the depth, and adds at most this much.
constexpr int64_t kMostDepth = std::numeric_limits<int32_t>::max() - (int64_t{1} << 16);

// Returns the distance of rows; 0 if there is at most one, whose stride is meaningless.
int64_t GetRowStride(const Argument& matrix) {
  return matrix.shape()[0] > 1 ? matrix.strides()[0] : 0;
}

// Checks a [N, K] matrix of activations for a weight with `depth` columns, and sets it in
// `product`.
void SetActivations(const Argument& activations, int64_t depth, int64_t most_rows,
                    FewRows& product) {
  activations.CheckRank(2, "[N, K]").CheckLastDimensionContiguous();
  const int64_t rows = activations.shape()[0];
  if (activations.shape()[1] != depth)
    activations.FailShape("[N, " + std::to_string(depth) + "]: the K of in_a");
  if (rows > most_rows) {
    activations.FailShape("[N, K] with N of at most " + std::to_string(most_rows) +
                          "; more rows are for torch.nn.functional.linear");
  }
  product.rows = rows;
  product.activations = activations.tensor().data_ptr();
  product.activation_stride = GetRowStride(activations);
}

void SetDepth(const char* op, int64_t depth, FewRows& product) {
  if (depth > kMostDepth) {
    FailOp(op,
           "K is " + std::to_string(depth) + ", expected at most " + std::to_string(kMostDepth));
  }
  product.depth = depth;
}

// Checks a bias that can be broadcast to [N, M], and sets it. Upstream takes a bias without
// elements for none.
void SetBias(const char* op, const MaybeTensor& tensor, ScalarType type, FewRows& product) {
  if (!tensor.has_value()) return;
  const Argument bias(op, "in_bias", *tensor);
  bias.CheckOnDevice();
  if (tensor->numel() == 0) return;
  bias.CheckDType(type);
  const Extents shape = bias.shape(), strides = bias.strides();
  const int64_t columns = shape.empty() ? 1 : shape.back();
  const int64_t rows = shape.size() < 2 ? 1 : shape[0];
  if (shape.size() > 2 || (columns != 1 && columns != product.columns) ||
      (rows != 1 && rows != product.rows)) {
    bias.FailShape("one that can be broadcast to [N, M] = [" + std::to_string(product.rows) + ", " +
                   std::to_string(product.columns) + "]");
  }
  product.bias = tensor->data_ptr();
  product.bias_column_stride = columns == 1 ? 0 : strides[shape.size() - 1];
  product.bias_row_stride = rows == 1 ? 0 : strides[0];
}

// Makes the result and sets it.
Tensor MakeOut(const Tensor& like, ScalarType type, FewRows& product) {
  Tensor out = MakeTensor<2>(like, {product.rows, product.columns}, type);
  product.out = out.data_ptr();
  product.out_stride = product.columns;
  return out;
}

// Checks a weight and activations that have one of `types`, and sets them.
FewRows CheckFactors(const char* op, const Argument& weight, const Tensor& activations_tensor,
                     std::initializer_list<ScalarType> types, int64_t units, int64_t most_rows) {
  const Argument activations(op, "in_b", activations_tensor);
  weight.CheckOnDevice().CheckDTypeIn(types);
  weight.CheckRank(2, "[M, K]").CheckLastDimensionContiguous();
  activations.CheckOnDevice().CheckSameDType(weight);
  CheckAtLeast(op, "CuCount", units, 1);
  FewRows product;
  product.compute_units = units;
  product.columns = weight.shape()[0];
  SetDepth(op, weight.shape()[1], product);
  product.weight = weight.tensor().data_ptr();
  product.weight_stride = GetRowStride(weight);
  SetActivations(activations, product.depth, most_rows, product);
  return product;
}

// Checks a product whose weight, activations and result have one 16-bit type.
FewRows CheckHalves(const char* op, const Tensor& weight_tensor, const Tensor& activations,
                    const MaybeTensor& bias, int64_t units, int64_t most_rows) {
  const Argument weight(op, "in_a", weight_tensor);
  FewRows product = CheckFactors(op, weight, activations, {ScalarType::BFloat16, ScalarType::Half},
                                 units, most_rows);
  product.type = weight.dtype();
  SetBias(op, bias, weight.scalar_type(), product);
  return product;
}

Tensor WvSplitK(Tensor weight, Tensor activations, MaybeTensor bias, int64_t units) {
  const char* op = "wvSplitK";
  FewRows product = CheckHalves(op, weight, activations, bias, units, kMostRows);
  Tensor out = MakeOut(activations, activations.scalar_type(), product);
  MultiplyFewRows(op, product);
  return out;
}

Tensor WvSplitKrc(Tensor weight, Tensor activations, MaybeTensor bias, int64_t units) {
  const char* op = "wvSplitKrc";
  FewRows product = CheckHalves(op, weight, activations, bias, units, kMostRowsInParts);
  Tensor out = MakeOut(activations, activations.scalar_type(), product);
  const int64_t parts = CountParts(product);
  if (parts == 1) {
    MultiplyFewRowsInParts(op, product, nullptr);
    return out;
  }
  const Tensor partial =
      MakeTensor<1>(activations, {parts * product.rows * product.columns}, ScalarType::Float);
  MultiplyFewRowsInParts(op, product, static_cast<float*>(partial.data_ptr()));
  return out;
}

// Upstream's kernel gives each thread block `rows_per_block` rows of the weight. These kernels
// choose that themselves.
Tensor LLMM1(Tensor weight, Tensor activations, int64_t rows_per_block) {
  const char* op = "LLMM1";
  CheckAtLeast(op, "rows_per_block", rows_per_block, 1);
  const Argument rows(op, "in_b", activations);
  rows.CheckRank(2, "[1, K]");
  if (rows.shape()[0] != 1) rows.FailShape("[1, K]");
  // There is no number of compute units in the arguments. This is what a large GPU has; a smaller
  // one gets more blocks than it runs at once.
  constexpr int64_t kUnits = 304;
  FewRows product = CheckHalves(op, weight, activations, std::nullopt, kUnits, 1);
  Tensor out = MakeOut(activations, activations.scalar_type(), product);
  MultiplyFewRows(op, product);
  return out;
}

const float* CheckScale(const char* op, const char* name, const Tensor& tensor) {
  Argument(op, name, tensor).CheckOnDevice().CheckDType(ScalarType::Float).CheckOneElement();
  return static_cast<const float*>(tensor.data_ptr());
}

void WvSplitKQ(Tensor weight_tensor, Tensor activations, MaybeTensor bias, Tensor out_tensor,
               Tensor scale_a, Tensor scale_b, int64_t units) {
  const char* op = "wvSplitKQ";
  const Argument weight(op, "in_a", weight_tensor), out(op, "out_c", out_tensor);
  FewRows product =
      CheckFactors(op, weight, activations,
                   {ScalarType::Float8_e4m3fn, ScalarType::Float8_e4m3fnuz}, units, kMostRows);
  out.CheckOnDevice().CheckDTypeIn({ScalarType::BFloat16, ScalarType::Half});
  product.type = out.dtype();
  out.CheckShape({product.rows, product.columns}, "[N, M]: the N of in_b and the M of in_a")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  product.out = out_tensor.data_ptr();
  product.out_stride = GetRowStride(out);
  SetBias(op, bias, out.scalar_type(), product);
  const float* weight_scale = CheckScale(op, "scale_a", scale_a);
  const float* activation_scale = CheckScale(op, "scale_b", scale_b);
  MultiplyFewRowsFp8(
      op, product,
      weight.scalar_type() == ScalarType::Float8_e4m3fn ? Fp8Code::kE4M3FN : Fp8Code::kE4M3FNUZ,
      activation_scale, weight_scale);
}

// Returns the number of bits of an index within a group.
int CheckGroupSize(const char* op, int64_t size) {
  switch (size) {
    case -1:
      return 31;
    case 32:
      return 5;
    case 64:
      return 6;
    case 128:
      return 7;
    default:
      FailOp(op, "group_size is " + std::to_string(size) +
                     ", expected 32, 64, 128, or -1 for one group for each row");
  }
}

// Checks scales or zero points, `rows` times `groups` numbers, and returns the distance of rows.
int64_t CheckGroups(const Argument& numbers, int64_t rows, int64_t groups, const char* why) {
  numbers.CheckShape({rows, groups}, why).CheckLastDimensionContiguous();
  return GetRowStride(numbers);
}

Tensor WvSplitKInt4(Tensor weight_tensor, Tensor activations_tensor, Tensor scale_tensor,
                    MaybeTensor zeros_tensor, MaybeTensor bias, int64_t units, int64_t group_size) {
  const char* op = "wvSplitK_int4_g";
  const Argument weight(op, "in_a", weight_tensor), activations(op, "in_b", activations_tensor),
      scales(op, "in_scale", scale_tensor);
  weight.CheckOnDevice()
      .CheckDTypeIn({ScalarType::Char, ScalarType::Byte, ScalarType::Int, ScalarType::UInt32})
      .CheckRank(2, "[M, K / 2] bytes or [M, K / 8] words of packed elements")
      .CheckLastDimensionContiguous()
      .CheckAligned(static_cast<int64_t>(weight_tensor.element_size()));
  activations.CheckOnDevice().CheckDTypeIn({ScalarType::BFloat16, ScalarType::Half});
  scales.CheckOnDevice().CheckSameDType(activations);
  CheckAtLeast(op, "CuCount", units, 1);

  FewRows product;
  product.type = activations.dtype();
  product.compute_units = units;
  product.columns = weight.shape()[0];
  const auto bytes = static_cast<int64_t>(weight_tensor.element_size());
  const int64_t depth = weight.shape()[1] * bytes * 2;
  Int4Weight packed;
  packed.group_bits = CheckGroupSize(op, group_size);
  const int64_t multiple = group_size == -1 ? 16 : group_size;
  if (depth % multiple != 0) {
    weight.FailShape("rows of K packed elements with K a multiple of " + std::to_string(multiple) +
                     ", not " + std::to_string(depth));
  }
  SetDepth(op, depth, product);
  product.weight = weight_tensor.data_ptr();
  product.weight_stride = GetRowStride(weight) * bytes;
  SetActivations(activations, depth, kMostRows, product);
  SetBias(op, bias, activations.scalar_type(), product);

  const int64_t groups = group_size == -1 ? 1 : depth / group_size;
  packed.scale_stride = CheckGroups(scales, product.columns, groups, "[M, groups of a row]");
  packed.scales = scale_tensor.data_ptr();
  if (zeros_tensor.has_value()) {
    const Argument zeros(op, "in_zero_points", *zeros_tensor);
    zeros.CheckOnDevice().CheckDTypeIn(
        {ScalarType::Int, ScalarType::UInt32, activations.scalar_type()});
    if (zeros.scalar_type() == activations.scalar_type()) {
      packed.zero_type = ZeroPointType::kFloating;
      packed.zero_stride = CheckGroups(zeros, product.columns, groups, "the shape of in_scale");
    } else {
      packed.zero_type = ZeroPointType::kPacked;
      packed.zero_stride = CheckGroups(zeros, (product.columns + 7) / 8, groups,
                                       "[M / 8, groups of a row], eight rows in a word");
    }
    packed.zeros = zeros_tensor->data_ptr();
  }
  Tensor out = MakeOut(activations_tensor, activations.scalar_type(), product);
  MultiplyFewRowsInt4(op, product, packed);
  return out;
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_rocm_C, m) {
  m.def("LLMM1(Tensor in_a, Tensor in_b, int rows_per_block) -> Tensor");
  m.def("wvSplitK(Tensor in_a, Tensor in_b, Tensor? in_bias, int CuCount) -> Tensor");
  m.def("wvSplitKrc(Tensor in_a, Tensor in_b, Tensor? in_bias, int CuCount) -> Tensor");
  m.def(
      "wvSplitKQ(Tensor in_a, Tensor in_b, Tensor? in_bias, Tensor! out_c, Tensor scale_a, Tensor "
      "scale_b, int CuCount) -> ()");
  m.def(
      "wvSplitK_int4_g(Tensor in_a, Tensor in_b, Tensor in_scale, Tensor? in_zero_points, Tensor? "
      "in_bias, int CuCount, int group_size) -> Tensor");
}

VLLM_LIBRARY_IMPL(_rocm_C, m) {
  m.impl("LLMM1", VLLM_BOX(vllm::LLMM1));
  m.impl("wvSplitK", VLLM_BOX(vllm::WvSplitK));
  m.impl("wvSplitKrc", VLLM_BOX(vllm::WvSplitKrc));
  m.impl("wvSplitKQ", VLLM_BOX(vllm::WvSplitKQ));
  m.impl("wvSplitK_int4_g", VLLM_BOX(vllm::WvSplitKInt4));
}
