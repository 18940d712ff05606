// SPDX-License-Identifier: Apache-2.0
#include "attention/flash3/registry.h"

namespace {

struct Registration {
  Registration() {
    using cutlass::bfloat16_t;
    using cutlass::half_t;
    vllm::flash3::RegisterCombine(
        {{{&run_mha_fwd_combine_<half_t, float, 64>, &run_mha_fwd_combine_<half_t, float, 128>},
          {&run_mha_fwd_combine_<bfloat16_t, float, 64>,
           &run_mha_fwd_combine_<bfloat16_t, float, 128>}}});
  }
};

const Registration registration;

}  // namespace
