// SPDX-License-Identifier: Apache-2.0
// The parameters of FlashAttention 3's kernels that follow from arguments alone.
#pragma once

#include <optional>

#include "attention/flash3/schedule.h"
#include "bindings/flash_arguments.h"

namespace vllm::flash3 {

using flash::CheckHalves;
using flash::CheckInt;
using flash::CheckInts;

// From one index of a dimension to the next. Of a dimension of size 1 any number is right, and the
// hardware wants a multiple of 16 bytes.
int64_t GetStride(const Argument& argument, size_t dim);

// int32 numbers on the GPU when they are given, `count` of them side by side; else null.
int* CheckOptionalInts(const char* op, const char* name, const std::optional<Tensor>& tensor,
                       int64_t count, const char* why);

// Numbers of heads, their size and dtype: sets h, h_k, d, dv and is_bf16. Throws when nothing is
// compiled for them.
void SetHeads(Params* params, const char* op, int64_t heads, int64_t kv_heads, int64_t head_size,
              int64_t value_size, bool bfloat16);

// [batch, queries, heads, head_size], or [total_q, heads, head_size] where sequences lie one behind
// the other.
void SetQueries(Params* params, const Argument& q, const Tensor& out);

// [sequences, keys, kv_heads, head_size]; pages of that shape; or [total_k, kv_heads, head_size].
void SetKeys(Params* params, const Argument& k, const Argument& v);

// [sequences, pages of the longest one].
void SetPages(Params* params, const Argument& table, const Argument& k);

// Keys that the kernel appends to the cache, [batch, new, kv_heads, head_size], or packed by
// cu_seqlens_k_new; and the rotation of these and of the queries. Sizes, queries and keys are set
// before.
struct NewKeys {
  std::optional<Tensor> k, v, cu_seqlens, rotary_cos, rotary_sin, seqlens_rotary;
  bool interleaved;
};
void SetNewKeys(Params* params, const char* op, const Argument& q, const NewKeys& given);

void SetScores(Params* params, double softmax_scale, double softcap);

// The GPU that runs, less `sm_margin` multiprocessors that are left to others.
void SetDevice(Params* params, const char* op, int64_t sm_margin);

// The memory for the results of parts, which lives as long as the launch is not queued.
struct Parts {
  std::optional<Tensor> out, lse;
};
Parts SetParts(Params* params, const Tensor& q);

}  // namespace vllm::flash3
