// SPDX-License-Identifier: Apache-2.0
// Sets the parameters of FlashAttention 2's kernels that depend on the arguments only.
#pragma once

#include <optional>

#include "attention/flash2/run.h"
#include "bindings/flash_arguments.h"
#include "bindings/flash_call.h"

namespace vllm::flash2 {

using flash::CheckHalves;
using flash::CheckInt;
using flash::CheckInts;
using flash::Parts;

// Checks the head size and the number of heads of q, [..., heads, head_size], and sets d, d_rounded
// and is_bf16. Throws if no kernel is compiled for them.
void SetHeads(Params* params, const Argument& q, int64_t kv_heads, const Argument& k);

// Sets keys and values of [blocks, rows, kv_heads, head_size]. A block is a page or the cache of
// one sequence.
void SetCaches(Params* params, const Argument& k, const Argument& v);

// Checks and sets the table of pages, [batch, blocks]. If `append` is set, keys are written to the
// pages, which must then be whole blocks.
void SetPages(Params* params, const Argument& table, const Argument& k, int64_t batch, bool append);

void SetScores(Params* params, double softmax_scale, double softcap);

// Sets which keys a query sees. `keys` is at least the number of keys of the longest sequence.
//
// If a sequence has one query, nothing comes after it: causality and the right side of the window
// have no effect, except that a bias counts from the diagonal.
void SetMask(Params* params, const char* op, bool causal, int64_t left, int64_t right, int64_t keys,
             bool one_query);

// Sets ALiBi slopes, float32: [heads] or [batch, heads].
void SetAlibi(Params* params, const Argument& slopes, int64_t batch, int64_t heads);

// For queries of one token, makes the heads that share keys rows of one tile, so that keys are read
// once. Returns whether it did.
bool GroupHeads(Params* params, int64_t heads, int64_t kv_heads);

// Sets the number of splits, at most kMostSplits or, below 1, as many as fill the GPU, and
// allocates the memory for the results of split keys.
Parts SetSplits(Params* params, const char* op, const Tensor& q, int64_t num_splits);

}  // namespace vllm::flash2
