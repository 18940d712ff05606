// SPDX-License-Identifier: Apache-2.0
// The cache that the indexer of sparse attention searches (DeepSeek-V3.2-Exp, 2025, section 2.1):
// one key for each token, in fp8 with separate scales.
#pragma once

#include <cstdint>

#include "cache/cache.h"

namespace vllm {

// Blocks of `block_size` tokens. Each block is contiguous: first the keys of its tokens, `width`
// codes of E4M3 each, then their scales as float32, one for every `group` adjacent elements of a
// key. An element is its code times its scale. Blocks and scales begin at multiples of four bytes.
struct IndexerCache {
  uint8_t* data = nullptr;
  int64_t blocks = 0;
  int64_t block_size = 1;
  int64_t block_stride = 0;  // in bytes
  int64_t width = 0;
  int64_t group = 1;  // divides width

  VLLM_HOST_DEVICE int64_t groups() const { return width / group; }
  VLLM_HOST_DEVICE uint8_t* Key(int64_t block, int64_t offset) const {
    return data + block * block_stride + offset * width;
  }
  VLLM_HOST_DEVICE float* Scales(int64_t block, int64_t offset) const {
    return reinterpret_cast<float*>(data + block * block_stride + block_size * width) +
           offset * groups();
  }
};

// Writes the keys of tokens. Their scales are max(|elements of the group|, 1e-4) / 448 (224 where
// E4M3 is float8_e4m3fnuz), or the next power of two. The scale ignores NaN, and NaN stays NaN.
// Quotients are rounded to nearest, ties to even.
void WriteIndexerKeys(const TokenVectors& keys, const IndexerCache& cache, const Slots& slots,
                      bool powers_of_two);

// Gathers the keys of sequences, `width` codes for each token of the output, and their scales.
// Strides are from token to token.
void GatherIndexerKeys(const IndexerCache& cache, const Sequences& sequences, uint8_t* keys,
                       int64_t key_stride, float* scales, int64_t scale_stride);

}  // namespace vllm
