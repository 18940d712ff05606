// SPDX-License-Identifier: Apache-2.0
// Runs the calls of FlashAttention 2's and 3's ops, and creates the results that both share.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>
#include <utility>

#include "bindings/arguments.h"

namespace vllm::flash {

// Runs a call. torch passes the arguments of a schema one by one; Call::Arguments has them in the
// same order, without those that the call ignores.
template <class Call, typename... Values>
auto RunCall(Values&&... values) {
  const typename Call::Arguments given{std::forward<Values>(values)...};
  return Call(given).Run();
}

// Writes the results of a call without keys: zeros, and `value` as the log-sum-exp.
inline void FillWithoutKeys(Tensor& out, Tensor& lse, double value) {
  torch::stable::zero_(out);
  torch::stable::fill_(lse, value);
}

// The memory for the results of split keys. It must live until the launch is queued.
struct Parts {
  std::optional<Tensor> out, lse;
};

// The kernels read these parameters even though dropout is off.
template <class Params>
void DisableDropout(Params* params) {
  params->p_dropout = 1.0f;
  params->p_dropout_in_uint8_t = 255;
  params->rp_dropout = 1.0f;
}

}  // namespace vllm::flash
