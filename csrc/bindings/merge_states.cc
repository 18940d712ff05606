// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <string>

#include "attention/merge_states.h"
#include "bindings/attention_heads.h"
#include "bindings/library.h"

namespace vllm {
namespace {

// Checks float32 of [heads, tokens], with adjacent tokens.
Argument CheckLse(const char* op, const char* name, const Tensor& tensor, Extents shape) {
  Argument lse(op, name, tensor);
  lse.CheckOnDevice()
      .CheckDType(torch::headeronly::ScalarType::Float)
      .CheckShape({shape[1], shape[0]}, "[heads, tokens] of output");
  lse.CheckLastDimensionContiguous();
  return lse;
}

void MergeStatesOp(Tensor output_tensor, std::optional<Tensor> output_lse_tensor,
                   Tensor prefix_output_tensor, Tensor prefix_lse_tensor,
                   Tensor suffix_output_tensor, Tensor suffix_lse_tensor,
                   std::optional<int64_t> prefill_tokens_with_context,
                   std::optional<Tensor> output_scale) {
  const char* op = "merge_attn_states";
  const Argument output(op, "output", output_tensor);
  const Argument prefix(op, "prefix_output", prefix_output_tensor);
  const Argument suffix(op, "suffix_output", suffix_output_tensor);
  MergeStates merge;
  merge.prefix = CheckHeads(prefix);
  const Extents shape = prefix.shape();
  suffix.CheckSameDType(prefix).CheckShape(shape, "the shape of prefix_output");
  merge.suffix = CheckHeads(suffix);
  if (output_scale.has_value())
    Argument(op, "output_scale", *output_scale)
        .Fail("is given", "None: float8 output is not supported");
  output.CheckSameDType(prefix).CheckShape(shape, "the shape of prefix_output").CheckWritable();
  merge.output = CheckHeads(output);
  const Argument prefix_lse = CheckLse(op, "prefix_lse", prefix_lse_tensor, shape);
  const Argument suffix_lse = CheckLse(op, "suffix_lse", suffix_lse_tensor, shape);
  merge.prefix_lse = static_cast<const float*>(prefix_lse_tensor.data_ptr());
  merge.prefix_lse_stride = prefix_lse.strides()[0];
  merge.suffix_lse = static_cast<const float*>(suffix_lse_tensor.data_ptr());
  merge.suffix_lse_stride = suffix_lse.strides()[0];
  if (output_lse_tensor.has_value()) {
    const Argument output_lse = CheckLse(op, "output_lse", *output_lse_tensor, shape);
    output_lse.CheckWritable();
    merge.output_lse = static_cast<float*>(output_lse_tensor->data_ptr());
    merge.output_lse_stride = output_lse.strides()[0];
  }
  merge.merged_tokens = prefill_tokens_with_context.value_or(shape[0]);
  if (merge.merged_tokens < 0 || merge.merged_tokens > shape[0]) {
    FailOp(op, "prefill_tokens_with_context is " + std::to_string(merge.merged_tokens) +
                   ", expected 0 to " + std::to_string(shape[0]) + ", the tokens of output");
  }
  RunMergeStates(merge);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "merge_attn_states(Tensor! output, Tensor!? output_lse, Tensor prefix_output, Tensor "
      "prefix_lse, Tensor suffix_output, Tensor suffix_lse, int? prefill_tokens_with_context, "
      "Tensor? output_scale=None) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) { m.impl("merge_attn_states", VLLM_BOX(vllm::MergeStatesOp)); }
