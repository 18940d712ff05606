// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// Queries or keys. A row of `tokens` is one token; its head h begins at h * head_stride elements.
struct Heads {
  Rows tokens;
  int64_t heads = 0;
  int64_t head_stride = 0;
};

// Cosines and sines. Row p belongs to position p and holds rotary_dim/2 cosines, then rotary_dim/2
// sines.
struct RotaryCache {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t positions = 0;
  int64_t rotary_dim = 0;
  int64_t stride = 0;  // elements from row to row
};

// For the CPU: throws std::runtime_error that names the op and the argument if a position is not in
// [0, cache.positions). `positions` has rows of one int64; its dtype field is ignored.
void CheckPositions(const char* op, const char* name, const Rows& positions,
                    const RotaryCache& cache);

// Rotary position embedding (Su et al., arXiv:2104.09864), in place, in float32 and rounded once.
// In each head, rotary_dim elements from `offset` on are rotated in pairs: (x, y) becomes (x cos -
// y sin, y cos + x sin).
//   neox:     pair i is (i, i + rotary_dim/2)
//   not neox: pair i is (2i, 2i + 1)
// `inverse` rotates back: the sine changes its sign. `positions` has rows of one int64 (its dtype
// field is ignored), as many as there are tokens. `key` may be null.
//
// If a position is not in [0, cache.positions), the CPU throws std::runtime_error before anything
// is changed; a GPU leaves the token unchanged.
void ApplyRotaryEmbedding(const Rows& positions, const Heads& query, const Heads* key,
                          const RotaryCache& cache, bool neox, int64_t offset, bool inverse);

}  // namespace vllm
