// SPDX-License-Identifier: Apache-2.0
#include "norm/norm_quant.h"

#include <optional>

#include "bindings/library.h"
#include "bindings/norm_operands.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

void RunStatic(const char* op, const Tensor& result_tensor, const Tensor& input_tensor,
               const Tensor* residual_tensor, const Tensor& weight_tensor,
               const Tensor& scale_tensor, double epsilon) {
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  CheckQuantized(result, input);
  const QType type = CheckFp8(result);
  Rows residual;
  if (residual_tensor != nullptr) residual = CheckResidual(op, *residual_tensor, input);
  const void* weight = CheckWeight(op, weight_tensor, input);
  const float* scale = CheckScalar(Argument(op, "scale", scale_tensor));
  NormalizeAndQuantizeStatic(result.GetLastDimensionRows(), type, input.GetLastDimensionRows(),
                             residual_tensor == nullptr ? nullptr : &residual, weight, scale,
                             static_cast<float>(epsilon));
}

void RmsNormOp(Tensor result, Tensor input, Tensor weight, Tensor scale, double epsilon) {
  RunStatic("rms_norm_static_fp8_quant", result, input, nullptr, weight, scale, epsilon);
}

void FusedAddRmsNormOp(Tensor result, Tensor input, Tensor residual, Tensor weight, Tensor scale,
                       double epsilon) {
  RunStatic("fused_add_rms_norm_static_fp8_quant", result, input, &residual, weight, scale,
            epsilon);
}

void RmsNormDynamicOp(Tensor result_tensor, Tensor input_tensor, Tensor weight_tensor,
                      Tensor scale_tensor, double epsilon, std::optional<Tensor> bound_tensor,
                      std::optional<Tensor> residual_tensor) {
  const char* op = "rms_norm_dynamic_per_token_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  CheckQuantized(result, input);
  const QType type = CheckCode(result);
  const void* weight = CheckWeight(op, weight_tensor, input);
  const Rows rows = input.GetLastDimensionRows();
  float* scales =
      CheckPerToken<float>(Argument(op, "scale", scale_tensor), ScalarType::Float, rows.count);
  const float* bound = CheckBound(op, bound_tensor, type);
  Rows residual;
  if (residual_tensor.has_value()) residual = CheckResidual(op, *residual_tensor, input);
  NormalizeAndQuantizeDynamic(result.GetLastDimensionRows(), type, rows,
                              residual_tensor.has_value() ? &residual : nullptr, weight, scales,
                              bound, static_cast<float>(epsilon));
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "rms_norm_static_fp8_quant(Tensor! result, Tensor input, Tensor weight, Tensor scale, float "
      "epsilon) -> ()");
  m.def(
      "fused_add_rms_norm_static_fp8_quant(Tensor! result, Tensor input, Tensor! residual, Tensor "
      "weight, Tensor scale, float epsilon) -> ()");
  m.def(
      "rms_norm_dynamic_per_token_quant(Tensor! result, Tensor input, Tensor weight, Tensor! "
      "scale, float epsilon, Tensor? scale_ub, Tensor!? residual) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("rms_norm_static_fp8_quant", VLLM_BOX(vllm::RmsNormOp));
  m.impl("fused_add_rms_norm_static_fp8_quant", VLLM_BOX(vllm::FusedAddRmsNormOp));
  m.impl("rms_norm_dynamic_per_token_quant", VLLM_BOX(vllm::RmsNormDynamicOp));
}
