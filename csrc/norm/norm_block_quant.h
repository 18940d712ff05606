// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"
#include "quant/group.h"

namespace vllm {

// NormalizeAndQuantizeDynamic of norm/norm_quant.h with a scale for each group of `size` adjacent
// elements of a row, instead of one for the row. input.width is a multiple of size.
void NormalizeAndQuantizeGroups(const Rows& out, QType type, const Rows& input,
                                const Rows* residual, const void* weight, const GroupScales& scales,
                                int64_t size, const float* bound, float epsilon);

}  // namespace vllm
