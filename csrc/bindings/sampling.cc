// SPDX-License-Identifier: Apache-2.0
#include "sampling/sampling.h"

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

Rows CheckLogits(const Argument& logits) {
  logits.CheckOnDevice().CheckFloating();
  const Extents shape = logits.shape();
  if (shape.size() != 2 || shape[1] == 0)
    logits.FailShape("[rows, vocabulary] with at least one token");
  return logits.CheckLastDimensionContiguous().GetLastDimensionRows();
}

Tensor MakeTokens(const Tensor& logits, int64_t rows) {
  return MakeTensor<1>(logits, {rows}, ScalarType::Long);
}

Tensor GreedyArgmaxOp(Tensor logits) {
  const Rows rows = CheckLogits(Argument("greedy_argmax", "logits", logits));
  Tensor tokens = MakeTokens(logits, rows.count);
  ChooseTokensGreedily(rows, static_cast<int64_t*>(tokens.data_ptr()));
  return tokens;
}

Tensor FusedGumbelArgmaxOp(Tensor logits, Tensor seeds_tensor) {
  const char* op = "fused_gumbel_argmax";
  const Rows rows = CheckLogits(Argument(op, "logits", logits));
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
