// SPDX-License-Identifier: Apache-2.0
#include "attention/flash2/registry.h"

namespace {

const vllm::flash2::WholeUnit<cutlass::bfloat16_t, 64, false> first;

}  // namespace
