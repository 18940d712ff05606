// SPDX-License-Identifier: Apache-2.0
// Sets the parameters of FlashAttention 3's kernels that depend on the arguments only.
#pragma once

#include <optional>

#include "attention/flash3/schedule.h"
#include "bindings/flash_arguments.h"
#include "bindings/flash_call.h"

namespace vllm::flash3 {

using flash::CheckHalves;
using flash::CheckInt;
using flash::CheckInts;
using flash::Parts;

// Returns the distance from one index of a dimension to the next. Any value is correct for a
// dimension of size 1, but the hardware requires a multiple of 16 bytes.
int64_t GetStride(const Argument& argument, size_t dim);

// Checks `count` adjacent int32 numbers on the GPU. Returns null if none are given.
int* CheckOptionalInts(const char* op, const char* name, const std::optional<Tensor>& tensor,
                       int64_t count, const char* why);

// Checks the numbers of heads, their size and dtype, and sets h, h_k, d, dv and is_bf16. Throws if
// no kernel is compiled for them.
void SetHeads(Params* params, const char* op, int64_t heads, int64_t kv_heads, int64_t head_size,
              int64_t value_size, bool bfloat16);

// Sets queries of [batch, queries, heads, head_size], or [total_q, heads, head_size] for
// concatenated sequences.
void SetQueries(Params* params, const Argument& q, const Tensor& out);

// Sets keys and values of [sequences, keys, kv_heads, head_size], pages of that shape, or [total_k,
// kv_heads, head_size].
void SetKeys(Params* params, const Argument& k, const Argument& v);

// Sets the table of pages, [sequences, pages of the longest one].
void SetPages(Params* params, const Argument& table, const Argument& k);

// Checks and sets the keys that the kernel appends to the cache, [batch, new, kv_heads, head_size]
// or concatenated as cu_seqlens_k_new says, and the rotation of the queries and of the new keys.
// Sizes, queries and keys must be set before.
struct NewKeys {
  std::optional<Tensor> k, v, cu_seqlens, rotary_cos, rotary_sin, seqlens_rotary;
  bool interleaved;
};
void SetNewKeys(Params* params, const char* op, const Argument& q, const NewKeys& given);

void SetScores(Params* params, double softmax_scale, double softcap);

// Sets the device. `sm_margin` multiprocessors are left to other kernels.
void SetDevice(Params* params, const char* op, int64_t sm_margin);

// Allocates the memory for the results of split keys and sets its parameters.
Parts SetParts(Params* params, const Tensor& q);

}  // namespace vllm::flash3
