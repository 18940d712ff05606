// SPDX-License-Identifier: Apache-2.0
// Computes where parts begin. The work of a batch forms a line: for each sequence a fixed cost,
// then its pages. Parts are pieces of equal length. A part that begins within the fixed cost of a
// sequence begins with that sequence.
#include <algorithm>

#include "attention/flashmla/items.h"
#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"
#include "core/gpu/stream.h"

namespace vllm::flashmla {
namespace {

using namespace gpu;

constexpr int kThreads = 256;
// The cost of loading queries and storing results, in pages.
constexpr int kBegin = 3;
// No part is smaller, because the results of pieces that are combined later are written and read
// again.
constexpr int kLeast = kBegin + 2;

__device__ __forceinline__ void WriteBoundary(const Plan& plan, int64_t part, int sequence,
                                              int page, int split) {
  if (part < plan.count) {
    int32_t* first = plan.parts + part * kPartInts;
    first[kFirstSequence] = sequence;
    first[kFirstPage] = page;
    first[kFirstSplit] = split;
    for (int i = kEndPage + 1; i < kPartInts; ++i) first[i] = 0;
  }
  if (part > 0) {
    int32_t* end = plan.parts + (part - 1) * kPartInts;
    end[kEndSequence] = sequence;
    end[kEndPage] = page;
  }
}

// Runs as a single block.
__global__ void __launch_bounds__(kThreads) CutBatch(Plan plan) {
  int64_t mine = 0;
  for (int sequence = static_cast<int>(threadIdx.x); sequence < plan.batch; sequence += kThreads) {
    mine += kBegin + CountPages(GetLength(plan.lengths, sequence, plan.max_pages));
  }
  const int64_t total = BlockReduce(mine, int64_t{0}, Sum());
  const int64_t size = Greater(int64_t{kLeast}, (total + plan.count - 1) / plan.count);
  int64_t work = 0;  // of the sequences before this round
  int splits = 0;
  for (int first = 0; first < plan.batch; first += kThreads) {
    const int sequence = first + static_cast<int>(threadIdx.x);
    const bool is_one = sequence < plan.batch;
    const int pages = is_one ? CountPages(GetLength(plan.lengths, sequence, plan.max_pages)) : 0;
    const int64_t cost = is_one ? kBegin + pages : 0;
    int64_t round_work;
    const int64_t end = work + BlockInclusiveSum(cost, round_work);
    const int64_t begin = end - cost, pages_begin = end - pages;
    // Of the boundaries at multiples of `size`, those after the first page cut the sequence.
    const int64_t uncut =
        pages_begin / size;  // the last boundary that does not, if it is in this sequence
    const int pieces =
        !is_one ? 0 : 1 + static_cast<int>(Greater(int64_t{0}, (end - 1) / size - uncut));
    int round_splits;
    const int splits_end = splits + BlockInclusiveSum(pieces, round_splits);
    if (is_one) {
      plan.splits[sequence] = splits_end - pieces;
      for (int64_t part = (begin + size - 1) / size; part * size < end; ++part) {
        const int64_t page = part * size - pages_begin;
        WriteBoundary(plan, part, sequence, static_cast<int>(Greater(int64_t{0}, page)),
                      page > 0 ? static_cast<int>(part - uncut) : 0);
      }
    }
    work += round_work;
    splits += round_splits;
  }
  if (threadIdx.x == 0) plan.splits[plan.batch] = splits;
  // Parts for which no work is left, and the end of the last part.
  for (int64_t part = (total + size - 1) / size + threadIdx.x; part <= plan.count;
       part += kThreads) {
    WriteBoundary(plan, part, plan.batch, 0, 0);
  }
}

}  // namespace

int ChoosePartCount(int64_t rows) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  return static_cast<int>(
      std::max<int64_t>(1, GetMultiprocessorCount() / std::max<int64_t>(1, tiles)));
}

void RunPlan(const Plan& plan) {
  Launch("dense_decode_fwd", &CutBatch, dim3(1), kThreads, 0, plan);
}

}  // namespace vllm::flashmla
