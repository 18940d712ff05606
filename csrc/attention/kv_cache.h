// SPDX-License-Identifier: Apache-2.0
// The paged cache of keys and values.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm {

// The element type of a cache.
enum class CacheDType { kFloat32, kBFloat16, kFloat16, kFloat8E4M3, kFloat8E5M2 };

// The keys or values of one layer: `blocks` blocks, each with block_size tokens of every head. The
// part of a block that belongs to one head, a page, is contiguous and has block_size * head_size
// elements. In a page, 16 neighbouring numbers belong to 16 tokens (keys) or to 16 elements of one
// token (values). Both products of attention can therefore read their vectors sequentially and need
// no sum across a vector:
//   keys:   element e of token t is at (t / 16 * head_size + e) * 16 + t % 16
//   values: element e of token t is at (e / 16 * block_size + t) * 16 + e % 16
// If head_size is not a multiple of 16, the last head_size % 16 elements of the values follow,
// token after token.
struct CachePages {
  // The number of elements in a panel. All instruction sets use the same layout: a vector is part
  // of a panel, or a panel is part of a vector.
  static constexpr int64_t kPanel = 16;

  void* data = nullptr;
  CacheDType dtype = CacheDType::kFloat32;
  int64_t blocks = 0;
  int64_t heads = 0;
  int64_t block_size = 0;  // a multiple of kPanel
  int64_t head_size = 0;
  int64_t block_stride = 0;  // in elements
  int64_t head_stride = 0;

  template <typename T>
  T* Page(int64_t block, int64_t head) const {
    return static_cast<T*>(data) + block * block_stride + head * head_stride;
  }
};

// Keys or values of new tokens. Element e of head h of token t is at t * token_stride + h *
// head_stride + e.
struct NewTokens {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t count = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

// Writes the key and value of token t to slot slots[t], which is token slots[t] % block_size of
// block slots[t] / block_size. A slot of -1 is skipped. Slots are int64 and slot_stride elements
// apart. Values for a float8 cache are divided by the scale, rounded to nearest, ties to even, and
// saturated; other caches have the dtype of the tokens.
//
// Throws std::runtime_error if a slot is neither -1 nor in the cache; nothing has been written
// then.
void WriteKvCache(const NewTokens& key, const NewTokens& value, const CachePages& key_cache,
                  const CachePages& value_cache, const int64_t* slots, int64_t slot_stride,
                  float key_scale, float value_scale);

}  // namespace vllm
