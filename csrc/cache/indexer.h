// SPDX-License-Identifier: Apache-2.0
// The cache that a sparse attention's indexer searches (DeepSeek-V3.2-Exp, 2025, section 2.1): one
// key a token, in fp8 with scales of its own.
#pragma once

#include <cstdint>

#include "cache/cache.h"

namespace vllm {

// Blocks of `block_size` tokens, each of one piece of memory: first the tokens' keys, `width` codes
// of E4M3 each, then their scales as float32, one for every `group` neighbouring elements of a key.
// An element is its code times its scale. Blocks begin at multiples of four bytes, and so do the
// scales.
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

// Writes the keys of tokens, with max(|elements of the group|, 1e-4) / 448 as their scales, or the
// next power of two. NaN is left out of the scale and stays NaN. Quotients are rounded to nearest,
// ties to even.
void WriteIndexerKeys(const TokenVectors& keys, const IndexerCache& cache, const Slots& slots,
                      bool powers_of_two);

// Gathers the keys of sequences, `width` codes for each token of the output, and their scales.
// Strides are from token to token.
void GatherIndexerKeys(const IndexerCache& cache, const Sequences& sequences, uint8_t* keys,
                       int64_t key_stride, float* scales, int64_t scale_stride);

}  // namespace vllm
