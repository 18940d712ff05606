// SPDX-License-Identifier: Apache-2.0
// The memory layout of the log-sum-exps that FlashAttention's kernel for paged caches writes.
// third_party/patches/flash-attention inserts the calls: without them, the kernel writes some
// layouts differently from the kernels that read them or do the same work.
#pragma once

#include <cstdint>

namespace vllm::flash {

// Returns the distance from one row of a head to the next. If a row of the kernel is a head of its
// group, the sequences lie next to each other.
template <bool kSplit, typename Params>
__host__ __device__ __forceinline__ int LseStride(const Params& params) {
  return !kSplit && params.unpadded_lse && params.seqlenq_ngroups_swapped ? params.b : 1;
}

// Returns the offset of row `row` of a head of a sequence. The layouts are:
//   a part of the keys                          [splits, batch, heads, max_seqlen_q]
//   not unpadded_lse                            [batch, heads, max_seqlen_q]
//   unpadded_lse and seqlenq_ngroups_swapped    [heads, max_seqlen_q, batch]
//   unpadded_lse                                [heads, total_q]
template <bool kSplit, typename Params, typename Sequence>
__host__ __device__ __forceinline__ int64_t LseOffset(const Params& params,
                                                      const Sequence& sequence, int split,
                                                      int batch, int head, int row) {
  if (kSplit || !params.unpadded_lse) {
    const int64_t before = (static_cast<int64_t>(split) * params.b + batch) * params.h + head;
    return before * params.seqlen_q + row;
  }
  if (params.seqlenq_ngroups_swapped)
    return (static_cast<int64_t>(head) * params.seqlen_q + row) * params.b + batch;
  const int64_t first =
      sequence.q_offset(static_cast<int64_t>(params.seqlen_q), static_cast<int64_t>(1), batch);
  return static_cast<int64_t>(head) * params.total_q + first + row;
}

}  // namespace vllm::flash
