// SPDX-License-Identifier: Apache-2.0
// The parameters of FlashAttention 2's kernels that follow from arguments alone.
#pragma once

#include <optional>

#include "attention/flash2/run.h"
#include "bindings/flash_arguments.h"

namespace vllm::flash2 {

using flash::CheckHalves;
using flash::CheckInt;
using flash::CheckInts;

// Head size and number of heads of q, [..., heads, head_size]: sets d, d_rounded and is_bf16.
// Throws when nothing is compiled for them.
void SetHeads(Params* params, const Argument& q, int64_t kv_heads, const Argument& k);

// Keys and values of `blocks` rows each, [blocks, rows, kv_heads, head_size]: pages, or the cache
// of one sequence each.
void SetCaches(Params* params, const Argument& k, const Argument& v);

// [batch, blocks] of pages; `append` says whether keys are written to them, which takes whole
// blocks.
void SetPages(Params* params, const Argument& table, const Argument& k, int64_t batch, bool append);

void SetScores(Params* params, double softmax_scale, double softcap);

// Which keys a query sees; `keys` is more than any sequence has.
//
// With one query in a sequence nothing comes after it: causal and the window's right side say
// nothing, unless a bias counts from the diagonal.
void SetMask(Params* params, const char* op, bool causal, int64_t left, int64_t right, int64_t keys,
             bool one_query);

// [heads] or [batch, heads] of float32.
void SetAlibi(Params* params, const Argument& slopes, int64_t batch, int64_t heads);

// Queries of one token: heads that share keys become rows of one tile, which reads the keys once.
bool GroupHeads(Params* params, int64_t heads, int64_t kv_heads);

// The parts that the keys are split into, and memory for their results, which lives as long as the
// launch is not queued.
struct Parts {
  std::optional<Tensor> out, lse;
};
Parts SetSplits(Params* params, const char* op, const Tensor& q, int64_t num_splits);

}  // namespace vllm::flash2
