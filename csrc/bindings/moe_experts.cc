// SPDX-License-Identifier: Apache-2.0
#include "moe/experts.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/string_argument.h"
#include "gemm/panels.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;
using MaybeTensor = std::optional<Tensor>;

// Checks upstream's name of a layout. The layout is the one of the instruction set that this
// process uses, so the name is otherwise ignored.
void CheckIsa(const char* op, const std::string& isa) {
  static const char* const kKnown[] = {"vec", "vec16", "amx", "neon", "vxe", "rvv", "vsx"};
  if (std::find(std::begin(kKnown), std::end(kKnown), isa) != std::end(kKnown)) return;
  FailOp(op, "isa is '" + isa + "', expected vec, vec16, amx, neon, vxe, rvv or vsx");
}

Gate CheckGate(const char* op, const std::string& act) {
  if (act == "silu") return {Gate::kSilu};
  if (act == "gelu") return {Gate::kGelu};
  if (act == "gelu_tanh") return {Gate::kGeluTanh};
  // The constants of gpt-oss.
  if (act == "swigluoai") return {Gate::kClampedSilu, Layout::kInterleaved, 7.0f, 1.702f, 1.0f};
  FailOp(op, "act is '" + act + "', expected silu, gelu, gelu_tanh or swigluoai");
}

void PrepackMoeWeight(Tensor weight_tensor, Tensor packed_tensor, StringArgument isa) {
  const char* op = "prepack_moe_weight";
  CheckIsa(op, isa.value);
  const Argument weight(op, "weight", weight_tensor);
  weight.CheckOnDevice().CheckFloating().CheckRank(3, "[experts, outputs, inputs]");
  const Argument packed(op, "packed_weight", packed_tensor);
  packed.CheckOnDevice()
      .CheckSameDType(weight)
      .CheckShape(weight.shape(), "the shape of weight")
      .CheckContiguous();
  if (weight_tensor.numel() != 0 && weight_tensor.data_ptr() == packed_tensor.data_ptr()) {
    packed.Fail("is weight itself", "separate memory");
  }
  const int64_t columns = weight.shape()[1], depth = weight.shape()[2];
  const int64_t size = GetSize(weight.dtype());
  for (int64_t expert = 0; expert < weight.shape()[0]; ++expert) {
    const char* from =
        static_cast<const char*>(weight_tensor.data_ptr()) + expert * weight.strides()[0] * size;
    char* to = static_cast<char*>(packed_tensor.data_ptr()) + expert * columns * depth * size;
    PackPanels(GetExpertPanels(weight.dtype(), depth, columns), from, weight.strides()[2],
               weight.strides()[1], to);
  }
}

const void* CheckBias(const char* op, const char* name, const MaybeTensor& tensor,
                      const Argument& weights) {
  if (!tensor.has_value()) return nullptr;
  const Argument bias(op, name, *tensor);
  bias.CheckOnDevice()
      .CheckSameDType(weights)
      .CheckShape({weights.shape()[0], weights.shape()[1]},
                  "the experts and outputs of the weights")
      .CheckContiguous();
  return tensor->data_ptr();
}

void CpuFusedMoe(Tensor output_tensor, Tensor input_tensor, Tensor w13_tensor, Tensor w2_tensor,
                 MaybeTensor bias13, MaybeTensor bias2, Tensor weights_tensor, Tensor ids_tensor,
                 bool skip_weighted, StringArgument act, StringArgument isa) {
  const char* op = "cpu_fused_moe";
  CheckIsa(op, isa.value);
  Experts experts;
  experts.gate = CheckGate(op, act.value);
  const Argument input(op, "input", input_tensor);
  input.CheckOnDevice().CheckFloating().CheckRank(2, "[tokens, hidden]");
  input.CheckLastDimensionContiguous();
  const int64_t tokens = input.shape()[0];
  experts.dtype = input.dtype();
  experts.hidden = input.shape()[1];
  const Argument w13(op, "w13", w13_tensor);
  w13.CheckOnDevice().CheckSameDType(input).CheckContiguous().CheckRank(
      3, "[experts, 2 * inner, hidden]");
  experts.count = w13.shape()[0];
  if (w13.shape()[1] % 2 != 0 || w13.shape()[2] != experts.hidden) {
    w13.FailShape("[experts, 2 * inner, " + std::to_string(experts.hidden) +
                  "] with the hidden size of input");
  }
  experts.inner = w13.shape()[1] / 2;
  const Argument w2(op, "w2", w2_tensor);
  w2.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape({experts.count, experts.hidden, experts.inner}, "[experts, hidden, inner] of w13")
      .CheckContiguous();
  experts.w13 = w13_tensor.data_ptr();
  experts.w2 = w2_tensor.data_ptr();
  experts.bias13 = CheckBias(op, "w13_bias", bias13, w13);
  experts.bias2 = CheckBias(op, "w2_bias", bias2, w2);
  const Argument output(op, "output", output_tensor);
  output.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape(input.shape(), "the shape of input")
      .CheckLastDimensionContiguous()
      .CheckWritable();

  const Argument ids(op, "topk_id", ids_tensor);
  ids.CheckOnDevice().CheckRank(2, "[tokens, topk]");
  ids.CheckDTypeIn({ScalarType::Int, ScalarType::Long});
  const int64_t topk = ids.shape()[1];
  ids.CheckShape({tokens, topk}, "[tokens, topk] with the tokens of input");
  const Argument weights(op, "topk_weights", weights_tensor);
  weights.CheckOnDevice()
      .CheckDType(ScalarType::Float)
      .CheckShape({tokens, topk}, "the shape of topk_id");
  RouteWeights route_weights;
  if (skip_weighted) {
    if (topk != 1)
      FailOp(op, "skip_weighted is True with " + std::to_string(topk) +
                     " experts a token, expected one");
  } else {
    route_weights = {static_cast<const float*>(weights_tensor.data_ptr()), weights.strides()[0],
                     weights.strides()[1]};
  }
  const ExpertIds table{
      ids_tensor.data_ptr(), ids.scalar_type() == ScalarType::Long, tokens, topk, ids.strides()[0],
      ids.strides()[1]};
  const Alignment alignment = Align(op, "topk_id", table, experts.count, 1, nullptr);
  ApplyExperts(output.GetLastDimensionRows(), input.GetLastDimensionRows(), experts, topk,
               alignment.locals, route_weights);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("prepack_moe_weight(Tensor weight, Tensor! packed_weight, str isa) -> ()");
  m.def(
      "cpu_fused_moe(Tensor! output, Tensor input, Tensor w13, Tensor w2, Tensor? w13_bias, "
      "Tensor? w2_bias, Tensor topk_weights, Tensor topk_id, bool skip_weighted, str act, str isa) "
      "-> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("prepack_moe_weight", VLLM_BOX(vllm::PrepackMoeWeight));
  m.impl("cpu_fused_moe", VLLM_BOX(vllm::CpuFusedMoe));
}
