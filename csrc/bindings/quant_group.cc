// SPDX-License-Identifier: Apache-2.0
#include "quant/group.h"

#include "bindings/library.h"
#include "bindings/group_scales.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

void RunQuantizeGroups(const Argument& out, QType type, const Argument& input,
                       const Argument& scales, const GroupQuantization& how) {
  const int64_t groups = CheckGroups(input, how.size);
  const Rows rows = input.GetLastDimensionRows();
  QuantizeRowGroups(out.GetLastDimensionRows(), type, rows,
                    CheckGroupScales(scales, input, rows.count, groups), how);
}

// The scale is divided by `high`, which must not be zero, and the range must not be empty.
void CheckLimits(const char* op, const char* type, double low, double high) {
  if (low <= high && high > 0.0) return;
  FailOp(op, std::string(type) + "_min is " + std::to_string(low) + " and " + type + "_max is " +
                 std::to_string(high) + ", expected " + type + "_min <= " + type + "_max and 0 < " +
                 type + "_max");
}

// The dummy arguments repeat what the strides of output_s say; upstream keeps them for readers of
// the graph.
void QuantizeGroupsFp8(Tensor input_tensor, Tensor q_tensor, Tensor s_tensor, int64_t group_size,
                       double eps, double fp8_min, double fp8_max, bool scale_ue8m0,
                       bool /*dummy_is_scale_transposed*/, bool /*dummy_is_tma_aligned*/) {
  const char* op = "per_token_group_fp8_quant";
  const Argument input(op, "input", input_tensor);
  const Argument q(op, "output_q", q_tensor);
  CheckQuantized(q, input);
  const QType type = CheckFp8(q);
  CheckLimits(op, "fp8", fp8_min, fp8_max);
  RunQuantizeGroups(q, type, input, Argument(op, "output_s", s_tensor),
                    {group_size, static_cast<float>(eps), static_cast<float>(fp8_min),
                     static_cast<float>(fp8_max), scale_ue8m0});
}

void QuantizeGroupsInt8(Tensor input_tensor, Tensor q_tensor, Tensor s_tensor, int64_t group_size,
                        double eps, double int8_min, double int8_max) {
  const char* op = "per_token_group_quant_int8";
  const Argument input(op, "input", input_tensor);
  const Argument q(op, "output_q", q_tensor);
  CheckQuantized(q, input);
  q.CheckDType(ScalarType::Char);
  CheckLimits(op, "int8", int8_min, int8_max);
  RunQuantizeGroups(q, QType::kInt8, input, Argument(op, "output_s", s_tensor),
                    {group_size, static_cast<float>(eps), static_cast<float>(int8_min),
                     static_cast<float>(int8_max), false});
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "per_token_group_fp8_quant(Tensor input, Tensor! output_q, Tensor! output_s, int group_size, "
      "float eps, float fp8_min, float fp8_max, bool scale_ue8m0, bool dummy_is_scale_transposed, "
      "bool dummy_is_tma_aligned) -> ()");
  m.def(
      "per_token_group_quant_int8(Tensor input, Tensor! output_q, Tensor! output_s, int "
      "group_size, float eps, float int8_min, float int8_max) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("per_token_group_fp8_quant", VLLM_BOX(vllm::QuantizeGroupsFp8));
  m.impl("per_token_group_quant_int8", VLLM_BOX(vllm::QuantizeGroupsInt8));
}
