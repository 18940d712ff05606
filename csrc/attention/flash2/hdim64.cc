// SPDX-License-Identifier: Apache-2.0
// hdim64_bf16.cc registers the eighth unit.
#include "attention/flash2/registry.h"

namespace {

const vllm::flash2::Others<64> others;

}  // namespace
