// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "attention/heads.h"
#include "attention/kv_cache.h"
#include "attention/schedule.h"

namespace vllm {

// One call of attention over a paged cache. For each new token and query head it computes
//   output = sum_k p_k v_k
//   p_k = exp(s_k - m) / (sum_j exp(s_j - m) + exp(sink - m))
//   s_k = cap(scale q.k) + slope (k - position)
// over the keys that the token sees, with cap(s) = softcap tanh(s / softcap). Query head h uses key
// head h / (heads / key heads). A token that sees no key gets zeros, as does one whose scores are
// all -infinity.
//
// As in torch.softmax, a score of NaN or +infinity that a token sees, or such a sink, makes the
// whole result of that token and head NaN, and no other result. NaN in a query, or in a key that
// the token sees, has the same effect. A cap turns infinite scores into finite numbers.
struct PagedAttention {
  AttentionHeads query;
  AttentionHeads output;
  CachePages key;
  CachePages value;
  const int32_t* block_table = nullptr;  // row r: the blocks of request r
  int64_t block_table_stride = 0;
  std::vector<AttentionRequest> requests;
  std::vector<RequestCut> cuts;
  int64_t window = 0;
  float scale = 1.0f;
  float softcap = 0.0f;                 // 0: none
  const float* alibi_slopes = nullptr;  // one a query head, or null
  const float* sinks = nullptr;         // one a query head, or null
  float key_scale = 1.0f;               // the factor of cached keys and values
  float value_scale = 1.0f;

  // Whether queries and the cache are bfloat16.
  bool InBFloat16() const {
    return query.tokens.dtype == DType::kBFloat16 && key.dtype == CacheDType::kBFloat16;
  }
};

// Computes attention in float32 by online softmax (Milakov and Gimelshein, arXiv:1805.02867) over
// tiles (Dao et al., arXiv:2205.14135). If there are few tokens, the keys of one token are divided
// among threads and the parts are merged.
//
// If queries and cache are bfloat16 and the CPU multiplies that, so do the products; sums are
// float32. The weights p_k are then rounded to bfloat16, and the sum that divides them is that of
// the rounded ones. Matrix instructions of GPUs need the same.
//
// The caller has checked all arguments: up to each request's length, the block table holds only
// blocks of the cache.
void RunPagedAttention(const PagedAttention& attention);

// Decode of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1). All heads of
// a request's single new token attend to the same latent rows. A row is a key; its first value_size
// elements are the value. NaN is treated and bfloat16 rounded as in PagedAttention.
struct LatentAttention {
  AttentionHeads query;         // one row a request
  AttentionHeads output;        // heads of value_size elements
  const void* cache = nullptr;  // dtype of the query; token t of block b is at
                                // b * block_stride + t * token_stride
  int64_t block_size = 0;
  int64_t block_stride = 0;
  int64_t token_stride = 0;
  int64_t head_size = 0;
  int64_t value_size = 0;
  const int32_t* block_table = nullptr;
  int64_t block_table_stride = 0;
  std::vector<int64_t> seq_lens;
  float scale = 1.0f;
};

void RunLatentAttention(const LatentAttention& attention);

}  // namespace vllm
