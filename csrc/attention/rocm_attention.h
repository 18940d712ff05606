// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm {

// The keys of a sequence are cut into partitions of this many.
inline constexpr int kRocmPartition = 256;
// A block of a cache has a multiple of this many tokens.
inline constexpr int kRocmTile = 16;

// The formats of float8 codes: float8_e4m3fn, float8_e4m3fnuz, and the one of the two that the
// instructions of the device have (core/gpu/types.h). kNone means that a tensor has the dtype of
// the query.
enum class CodeFormat { kNone, kE4M3, kFnuz, kOfDevice };

// One query token of each sequence attends to the keys and values of a paged cache. Strides are in
// elements.
struct RocmAttention {
  DType dtype = DType::kBFloat16;  // of the query and of partial_out; kBFloat16 or kFloat16
  int64_t sequences = 0;
  int64_t heads = 0, kv_heads = 0, head_size = 0;  // head_size is 64 or 128
  float scale = 1.0f;

  const void* query = nullptr;  // [tokens, heads, head_size]
  int64_t tokens = 0;
  int64_t query_token_stride = 0, query_head_stride = 0;

  void* out = nullptr;  // as the query
  CodeFormat out_format = CodeFormat::kNone;
  const float* out_scale = nullptr;  // not null if out has codes: code = value / scale
  int64_t out_token_stride = 0, out_head_stride = 0;

  // With x, the number of elements in 16 bytes, element d of the token at offset t of a block is at
  //   keys: d / x * block_size * x + t * x + d % x
  //   values: d * value_row_stride + t / x * value_group_stride + t % x
  const void* keys = nullptr;
  const void* values = nullptr;
  CodeFormat cache_format = CodeFormat::kNone;
  const float* key_scale = nullptr;  // null without codes
  const float* value_scale = nullptr;
  int64_t blocks = 0;
  int block_size = kRocmTile;
  int64_t key_block_stride = 0, key_head_stride = 0;
  int64_t value_block_stride = 0, value_head_stride = 0;
  int value_row_stride = 0, value_group_stride = 0;

  // Position p of sequence s is in block table[s * table_stride + p / block_size]. Positions whose
  // block is not in the cache are left out.
  const int32_t* table = nullptr;
  int64_t table_stride = 0;
  int64_t columns = 0;
  // Keys of each sequence, of which at most max_length count. The query is the last of them.
  const int32_t* lengths = nullptr;
  int64_t max_length = 0;
  // The first token of each sequence, and the end; null: token s is that of sequence s. Sequences
  // with another number of tokens than one are skipped.
  const int32_t* starts = nullptr;
  // Of each head: slope * (position - position of the query) is added to a score. May be null.
  const float* slopes = nullptr;

  // The first pass leaves these for the second, if max_length > kRocmPartition: for each sequence,
  // head and partition the largest score, the sum of exp(score - largest), and the mean of the
  // values that is weighted with exp(score - largest).
  int64_t partitions = 0;
  float* maxima = nullptr;
  float* sums = nullptr;
  void* partial_out = nullptr;
};

// The scores are scale * query * key; the results are the values' mean, weighted with exp(score).
// Without keys, a result is zero. A score that is NaN makes the result NaN.
void RunRocmAttention(const RocmAttention& attention);

}  // namespace vllm
