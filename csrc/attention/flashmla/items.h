// SPDX-License-Identifier: Apache-2.0
// The work items of a thread block, one after the other. The contents of parts are not trusted:
// items that do not fit are skipped.
#pragma once

#include <cstdint>

#include "attention/flashmla/dense_decode.h"
#include "core/gpu/gpu.h"

namespace vllm::flashmla {

// A piece of a sequence: pages first to last - 1. An empty sequence has an item without pages.
struct Item {
  int sequence;
  int length;  // of the whole sequence
  int first, last;
  int64_t piece;  // index of the result to be combined later; -1 for a whole sequence
};

VLLM_HOST_DEVICE inline int CountPages(int length) { return (length + kPageRows - 1) / kPageRows; }

__device__ __forceinline__ int GetLength(const int32_t* lengths, int sequence, int max_pages) {
  return gpu::Greater(0, gpu::Lesser(lengths[sequence], max_pages * kPageRows));
}

class Items {
 public:
  __device__ __forceinline__ Items(const DenseDecode& decode, int part)
      : decode_(decode),
        part_(decode.parts + int64_t{part} * kPartInts),
        sequence_(gpu::Greater(0, part_[kFirstSequence])) {}

  // Gets the next item. Returns false if there is none.
  __device__ __forceinline__ bool Next(Item& item) {
    for (;; ++sequence_) {
      const int end = part_[kEndSequence], end_page = part_[kEndPage];
      if (sequence_ >= decode_.batch || sequence_ > end || (sequence_ == end && end_page <= 0))
        return false;
      const bool begins = sequence_ == part_[kFirstSequence];
      item.sequence = sequence_;
      item.length = GetLength(decode_.lengths, sequence_, decode_.max_pages);
      const int pages = CountPages(item.length);
      item.first = begins ? gpu::Greater(0, gpu::Lesser(part_[kFirstPage], pages)) : 0;
      item.last = sequence_ == end ? gpu::Greater(item.first, gpu::Lesser(end_page, pages)) : pages;
      const int before = decode_.splits[sequence_], after = decode_.splits[sequence_ + 1];
      item.piece = -1;
      if (after - before > 1) {
        item.piece = int64_t{before} + (begins ? part_[kFirstSplit] : 0);
        if (item.piece < 0 || item.piece >= int64_t{decode_.batch} + decode_.part_count) continue;
      }
      ++sequence_;
      return true;
    }
  }

 private:
  const DenseDecode& decode_;
  const int32_t* part_;
  int sequence_;
};

}  // namespace vllm::flashmla
