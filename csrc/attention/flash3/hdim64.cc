// SPDX-License-Identifier: Apache-2.0
// hdim64_bf16_paged.cc registers the fourth unit.
#include "attention/flash3/registry.h"

namespace {

const vllm::flash3::Whole<cutlass::bfloat16_t, 64> whole_bfloat16;
const vllm::flash3::Whole<cutlass::half_t, 64> whole_float16;
const vllm::flash3::Paged<cutlass::half_t, 64> paged_float16;

}  // namespace
