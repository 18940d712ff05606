// SPDX-License-Identifier: Apache-2.0
#include "norm/norm.h"

#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

// Returns the weight's memory, or null without a weight.
const void* CheckWeight(const char* op, const std::optional<Tensor>& weight_tensor,
                        const Argument& input) {
  if (!weight_tensor.has_value()) return nullptr;
  const Argument weight(op, "weight", *weight_tensor);
  weight.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape({input.shape().back()}, "the last dimension of input")
      .CheckLastDimensionContiguous();
  return weight_tensor->data_ptr();
}

void RmsNormOp(Tensor result_tensor, Tensor input_tensor, std::optional<Tensor> weight_tensor,
               double epsilon) {
  const char* op = "rms_norm";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  input.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous();
  result.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape(input.shape(), "the shape of input")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  const void* weight = CheckWeight(op, weight_tensor, input);
  NormalizeRms(result.GetLastDimensionRows(), input.GetLastDimensionRows(), weight,
               static_cast<float>(epsilon));
}

void FusedAddRmsNormOp(Tensor input_tensor, Tensor residual_tensor,
                       std::optional<Tensor> weight_tensor, double epsilon) {
  const char* op = "fused_add_rms_norm";
  const Argument input(op, "input", input_tensor);
  const Argument residual(op, "residual", residual_tensor);
  input.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous().CheckWritable();
  residual.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape(input.shape(), "the shape of input")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  const void* weight = CheckWeight(op, weight_tensor, input);
  AddAndNormalizeRms(input.GetLastDimensionRows(), residual.GetLastDimensionRows(), weight,
                     static_cast<float>(epsilon));
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("rms_norm(Tensor! result, Tensor input, Tensor? weight, float epsilon) -> ()");
  m.def("fused_add_rms_norm(Tensor! input, Tensor! residual, Tensor? weight, float epsilon) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("rms_norm", VLLM_BOX(vllm::RmsNormOp));
  m.impl("fused_add_rms_norm", VLLM_BOX(vllm::FusedAddRmsNormOp));
}
