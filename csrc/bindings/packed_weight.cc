// SPDX-License-Identifier: Apache-2.0
#include "gemm/packed_weight.h"

#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

Tensor ConvertWeightPacked(Tensor weight_tensor) {
  const Argument weight("convert_weight_packed", "weight", weight_tensor);
  weight.CheckOnDevice().CheckFloating().CheckRank(2, "[N, K]");
  const int64_t columns = weight.shape()[0], depth = weight.shape()[1];
  PackedWeight packed;
  packed.dtype = weight.dtype();
  packed.panels = PackedWeight::Panels(columns);
  packed.steps = PackedWeight::Steps(packed.dtype, depth);
  Tensor result =
      MakeTensor<3>(weight_tensor, {packed.panels, packed.steps, PackedWeight::Width(packed.dtype)},
                    weight.scalar_type());
  PackWeight(packed, weight_tensor.data_ptr(), weight.strides()[0], weight.strides()[1], columns,
             depth, result.data_ptr());
  return result;
}

void WeightPackedLinear(Tensor out_tensor, Tensor a_tensor, Tensor weight_tensor,
                        std::optional<Tensor> bias_tensor, bool is_packed) {
  const char* op = "weight_packed_linear";
  if (!is_packed)
    FailOp(op, "is_vnni is False, expected True: mat2 is a result of convert_weight_packed");
  const Argument a(op, "mat1", a_tensor);
  a.CheckOnDevice().CheckFloating().CheckRank(2, "[M, K]").CheckLastDimensionContiguous();
  const Argument weight(op, "mat2", weight_tensor);
  weight.CheckOnDevice().CheckSameDType(a).CheckContiguous();
  const Argument out(op, "out", out_tensor);
  out.CheckOnDevice()
      .CheckSameDType(a)
      .CheckRank(2, "[M, N]")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  const int64_t rows = a.shape()[0], columns = out.shape()[1];
  out.CheckShape({rows, columns}, "[M, N] with the M of mat1");
  PackedWeight packed;
  packed.data = weight_tensor.data_ptr();
  packed.dtype = a.dtype();
  packed.panels = PackedWeight::Panels(columns);
  packed.steps = PackedWeight::Steps(packed.dtype, a.shape()[1]);
  weight.CheckShape(
      {packed.panels, packed.steps, PackedWeight::Width(packed.dtype)},
      "what convert_weight_packed returns for [N, K] with the N of out and the K of mat1");
  const float* bias = nullptr;
  if (bias_tensor.has_value()) {
    const Argument argument(op, "bias", *bias_tensor);
    argument.CheckOnDevice()
        .CheckDType(ScalarType::Float)
        .CheckShape({columns}, "the N of out")
        .CheckLastDimensionContiguous();
    bias = argument.Data<const float>();
  }
  MultiplyPacked(out.GetLastDimensionRows(), a.GetLastDimensionRows(), packed, bias);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("convert_weight_packed(Tensor weight) -> Tensor");
  m.def(
      "weight_packed_linear(Tensor(a0!) out, Tensor mat1, Tensor mat2, Tensor? bias, bool is_vnni) "
      "-> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("convert_weight_packed", VLLM_BOX(vllm::ConvertWeightPacked));
  m.impl("weight_packed_linear", VLLM_BOX(vllm::WeightPackedLinear));
}
