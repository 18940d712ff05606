// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "attention/attention.h"

namespace vllm {

// The largest score and the sum of exponentials so far, of one row. After a score of NaN the sum is
// NaN, and the largest score is still a number.
struct RowState {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

// A piece of work for one key head, with the memory in which it is computed. A row is a new token
// and one of the `group` query heads that share the key head: token * group + head.
struct Tile {
  // The number of keys whose scores are kept at a time. With 128 rows of 128 elements, everything
  // fits into 512 KiB.
  static constexpr int64_t kKeys = 128;
  // Up to this many rows, it is cheaper to convert keys and values again for each block of rows
  // than to write converted ones to memory.
  static constexpr size_t kDirectRows = 16;

  const PagedAttention* call = nullptr;
  const WorkItem* item = nullptr;
  const AttentionRequest* request = nullptr;
  const int32_t* block_table = nullptr;  // of the request
  int64_t key_head = 0;
  size_t rows = 0;
  size_t group = 0;
  size_t head_size = 0;
  size_t sum_stride = 0;  // head_size rounded up to whole panels

  // Queries and weights are of the type that the products multiply. Those of bfloat16 take half of
  // this memory. Weights of float32 replace the scores.
  float* query = nullptr;          // [rows, head_size]
  float* weights = nullptr;        // [rows, kKeys] of bfloat16
  float* sums = nullptr;           // [rows, sum_stride]
  float* scores = nullptr;         // [rows, kKeys]
  RowState* states = nullptr;      // [rows]
  Visible* visible = nullptr;      // [rows], within the item's keys
  float* packed_keys = nullptr;    // [kKeys / 16, head_size, 16]
  float* packed_values = nullptr;  // [sum_stride / 16, kKeys, 16]
  float* value_tail = nullptr;     // [block_size, 16], when 16 does not divide head_size

  // Returns the new token of a row, counted from the request's first one.
  int64_t TokenOfRow(size_t row) const {
    return item->first_token + static_cast<int64_t>(row / group);
  }
  // Returns the query head of a row.
  int64_t HeadOfRow(size_t row) const {
    return key_head * static_cast<int64_t>(group) + static_cast<int64_t>(row % group);
  }

  // Returns the address of the row in the query or the output.
  template <typename T>
  T* Row(const AttentionHeads& heads, size_t row) const {
    return heads.Head<T>(request->query_begin + TokenOfRow(row), HeadOfRow(row));
  }
};

// A tile of latent attention: some heads of one request and some of its keys.
struct LatentTile {
  // With 64 heads and rows of 576 elements, everything fits into 512 KiB.
  static constexpr int64_t kKeys = 32;
  static constexpr int64_t kHeads = 64;

  const int32_t* block_table = nullptr;  // of the request
  int64_t request = 0;
  int64_t first_head = 0;
  int64_t keys_begin = 0;
  int64_t keys_end = 0;
  size_t rows = 0;           // heads
  size_t latent_stride = 0;  // elements of a latent row, rounded up to whole panels
  size_t sum_stride = 0;     // elements of a value, rounded up to whole panels

  // Queries and weights are of the type that the products multiply. Those of bfloat16 take half of
  // this memory. Weights of float32 replace the scores.
  float* query = nullptr;      // [rows, latent_stride]
  float* weights = nullptr;    // [rows, kKeys] of bfloat16
  float* sums = nullptr;       // [rows, sum_stride]
  float* scores = nullptr;     // [rows, kKeys]
  float* latent = nullptr;     // [kKeys, latent_stride]: rows as float32, if the cache has others
  RowState* states = nullptr;  // [rows]

  // Returns the address of the row in the query or the output.
  template <typename T>
  T* Row(const AttentionHeads& heads, size_t row) const {
    return heads.Head<T>(request, first_head + static_cast<int64_t>(row));
  }
};

}  // namespace vllm
