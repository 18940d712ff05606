// SPDX-License-Identifier: Apache-2.0
#include "attention/flash3/registry.h"

namespace {

const vllm::flash3::Paged<cutlass::bfloat16_t, 64> paged;

}  // namespace
