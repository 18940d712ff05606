// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"
#include "rotary/rotary.h"

namespace vllm {

// A row of qkv is a token: query_heads heads, then key_heads heads, then unchanged heads, of
// head_size elements each. Each query and key head is replaced by its root mean square
// normalisation, with the weight for its kind (head_size elements of the dtype of qkv), and the
// first rotary_dim elements of that are rotated as in ApplyRotaryEmbedding; in float32 and rounded
// once.
//
// If a position is not in [0, cache.positions), the CPU throws std::runtime_error that names
// fused_qk_norm_rope and position_ids, before anything is changed; a GPU leaves the token
// unchanged. `positions` has rows of one int64, as many as qkv.
struct QkNormRope {
  int64_t query_heads = 0;
  int64_t key_heads = 0;
  int64_t head_size = 0;
  float epsilon = 0.0f;
  const void* query_weight = nullptr;
  const void* key_weight = nullptr;
  RotaryCache cache;
  bool neox = true;
};
void NormalizeAndRotateHeads(const Rows& qkv, const Rows& positions, const QkNormRope& how);

}  // namespace vllm
