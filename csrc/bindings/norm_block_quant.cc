// SPDX-License-Identifier: Apache-2.0
#include "norm/norm_block_quant.h"

#include <optional>

#include "bindings/group_scales.h"
#include "bindings/library.h"
#include "bindings/norm_operands.h"

namespace vllm {
namespace {

// is_scale_transposed repeats what the strides of scale say; upstream selects a kernel by it.
void RmsNormPerBlockQuantOp(Tensor result_tensor, Tensor input_tensor, Tensor weight_tensor,
                            Tensor scale_tensor, double epsilon, std::optional<Tensor> bound_tensor,
                            std::optional<Tensor> residual_tensor, int64_t group_size,
                            bool /*is_scale_transposed*/) {
  const char* op = "rms_norm_per_block_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  CheckQuantized(result, input);
  const QType type = CheckCode(result);
  const void* weight = CheckWeight(op, weight_tensor, input);
  const int64_t groups = CheckGroups(input, group_size);
  const Rows rows = input.GetLastDimensionRows();
  const GroupScales scales =
      CheckGroupScales(Argument(op, "scale", scale_tensor), input, rows.count, groups);
  const float* bound = CheckBound(op, bound_tensor, type);
  Rows residual;
  if (residual_tensor.has_value()) residual = CheckResidual(op, *residual_tensor, input);
  NormalizeAndQuantizeGroups(result.GetLastDimensionRows(), type, rows,
                             residual_tensor.has_value() ? &residual : nullptr, weight, scales,
                             group_size, bound, static_cast<float>(epsilon));
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "rms_norm_per_block_quant(Tensor! result, Tensor input, Tensor weight, Tensor! scale, float "
      "epsilon, Tensor? scale_ub, Tensor!? residual, int group_size, bool is_scale_transposed) -> "
      "()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("rms_norm_per_block_quant", VLLM_BOX(vllm::RmsNormPerBlockQuantOp));
}
