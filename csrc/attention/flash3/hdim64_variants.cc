// SPDX-License-Identifier: Apache-2.0
#include "attention/flash3/registry.h"

namespace {

const vllm::flash3::Variants<cutlass::bfloat16_t, 64> bfloat16;
const vllm::flash3::Variants<cutlass::half_t, 64> float16;

}  // namespace
