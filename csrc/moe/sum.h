// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "core/rows.h"

namespace vllm {

// out[t] = sum over k of input[t * topk + k], in float32 and rounded once. `taken` has a byte for each row of input, and rows whose byte is
// 0 are not read; empty for all. input.count = topk * out.count; same dtype and width; no overlap.
void SumChoices(const Rows& out, const Rows& input, int64_t topk, const std::vector<uint8_t>& taken);

}  // namespace vllm
