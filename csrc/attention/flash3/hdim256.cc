// SPDX-License-Identifier: Apache-2.0
#include "attention/flash3/registry.h"

namespace {

const vllm::flash3::Whole<cutlass::bfloat16_t, 256> whole_bfloat16;
const vllm::flash3::Whole<cutlass::half_t, 256> whole_float16;
const vllm::flash3::Paged<cutlass::bfloat16_t, 256> paged_bfloat16;
const vllm::flash3::Paged<cutlass::half_t, 256> paged_float16;
const vllm::flash3::Variants<cutlass::bfloat16_t, 256> bfloat16;
const vllm::flash3::Variants<cutlass::half_t, 256> float16;

}  // namespace
