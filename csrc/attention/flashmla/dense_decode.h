// SPDX-License-Identifier: Apache-2.0
// Attention of a few new tokens over a paged cache of latent rows. All heads share the same keys,
// and the values are the first elements of the keys (DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1,
// with the projections absorbed into queries and results).
//
// The keys of a batch are cut into parts of similar size, one for each group of thread blocks that
// reads the same keys. A part can begin and end anywhere. The results of one sequence's parts are
// combined afterwards (Dao et al., "Flash-Decoding", 2023).
//
// A score of NaN or +infinity makes the row's result and its lse NaN, as in torch.softmax.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vllm::flashmla {

inline constexpr int kPageRows = 64;
// The number of elements in a row of the cache; its first kValueWidth elements are the value.
inline constexpr int kWidth = 576;
inline constexpr int kValueWidth = 512;
// The rows of queries (tokens times heads) that a thread block computes.
inline constexpr int kTileRows = 64;

// A part is stored as kPartInts numbers, the same shape as upstream's.
inline constexpr int kPartInts = 8;
enum PartField { kFirstSequence, kFirstPage, kFirstSplit, kEndSequence, kEndPage };

// The plan of a batch: as many parts as fill the device, [count, kPartInts].
struct Plan {
  const int32_t* lengths;  // [batch]
  int batch;
  int max_pages;  // of a sequence
  int count;
  int32_t* parts;
  int32_t* splits;  // [batch + 1]: number of pieces of all preceding sequences
};

// Returns the number of parts. Each part needs one thread block for every kTileRows of the `rows`
// rows of a sequence.
int ChoosePartCount(int64_t rows);
void RunPlan(const Plan& plan);

struct DenseDecode {
  DType dtype;           // bfloat16 or float16
  const void* q;         // [batch, queries, heads, kWidth]
  int64_t q_strides[3];  // in elements, as all strides
  const void* cache;     // [pages, kPageRows, kWidth]
  int64_t page_stride, row_stride;
  int64_t pages;
  const int32_t* lengths;  // [batch]
  const int32_t* table;    // [batch, max_pages]
  int64_t table_stride;
  int max_pages;
  int batch, queries, heads;
  bool causal;  // query i of n sees all keys but the last n - 1 - i
  float scale;
  int part_count;
  const int32_t* parts;
  const int32_t* splits;
  void* out;   // [batch, queries, heads, kValueWidth], contiguous
  float* lse;  // [batch, heads, queries], contiguous: natural logarithms of the sums;
               // infinity if there is no key
  // Results of pieces of sequences, indexed by splits: at most batch + part_count of them.
  float* piece_out;  // [.., queries * heads, kValueWidth]
  float* piece_lse;  // [.., queries * heads], base 2
};

void RunDenseDecode(const DenseDecode& decode);
// Combines the pieces. Call it after RunDenseDecode.
void RunCombine(const DenseDecode& decode);

}  // namespace vllm::flashmla
