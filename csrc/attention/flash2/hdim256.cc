// SPDX-License-Identifier: Apache-2.0
#include "attention/flash2/registry.h"

namespace {

const vllm::flash2::Registration<256> registration;

}  // namespace
