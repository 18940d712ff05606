// SPDX-License-Identifier: Apache-2.0
#include "attention/flash2/registry.h"

namespace {

const vllm::flash2::WholeUnit<cutlass::bfloat16_t, 256, false> first;
const vllm::flash2::Others<256> others;

}  // namespace
