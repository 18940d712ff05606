// SPDX-License-Identifier: Apache-2.0
#include "sampling/sampling.h"

#include <torch/csrc/stable/ops.h>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// Returns logits whose rows have adjacent elements: the argument, or a copy of it.
Tensor CheckLogits(const char* op, const Tensor& tensor) {
  const Argument logits(op, "logits", tensor);
  logits.CheckOnDevice().CheckFloating();
  const Extents shape = logits.shape();
  if (shape.size() != 2 || shape[1] == 0)
    logits.FailShape("[rows, vocabulary] with at least one token");
  return logits.strides()[1] == 1 ? tensor : torch::stable::contiguous(tensor);
}

Tensor MakeTokens(const Tensor& logits, int64_t rows) {
  return MakeTensor<1>(logits, {rows}, ScalarType::Long);
}

Tensor GreedyArgmaxOp(Tensor logits_tensor) {
  const char* op = "greedy_argmax";
  const Tensor logits = CheckLogits(op, logits_tensor);
  const Rows rows = Argument(op, "logits", logits).GetLastDimensionRows();
  Tensor tokens = MakeTokens(logits, rows.count);
  ChooseTokensGreedily(rows, static_cast<int64_t*>(tokens.data_ptr()));
  return tokens;
}

Tensor FusedGumbelArgmaxOp(Tensor logits_tensor, Tensor seeds_tensor) {
  const char* op = "fused_gumbel_argmax";
  const Tensor logits = CheckLogits(op, logits_tensor);
  const Rows rows = Argument(op, "logits", logits).GetLastDimensionRows();
  const Argument seeds(op, "seeds", seeds_tensor);
  seeds.CheckOnDevice()
      .CheckDType(ScalarType::Long)
      .CheckShape({rows.count}, "the number of rows of logits");
  Tensor tokens = MakeTokens(logits, rows.count);
  SampleTokens(rows, static_cast<const int64_t*>(seeds_tensor.data_ptr()), seeds.strides()[0],
               static_cast<int64_t*>(tokens.data_ptr()));
  return tokens;
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("greedy_argmax(Tensor logits) -> Tensor");
  m.def("fused_gumbel_argmax(Tensor logits, Tensor seeds) -> Tensor");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("greedy_argmax", VLLM_BOX(vllm::GreedyArgmaxOp));
  m.impl("fused_gumbel_argmax", VLLM_BOX(vllm::FusedGumbelArgmaxOp));
}
