// SPDX-License-Identifier: Apache-2.0
// Chooses the kernel and the number of parts into which keys are split, and places the memory in
// which the kernels record how work is divided. The op that computes attention and the op that
// divides the work in advance must get the same results.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "attention/flash3/registry.h"

namespace vllm::flash3 {

// The kernel that combines parts supports no more.
inline constexpr int64_t kMostSplits = 256;

// The rows of queries and the keys that a thread block of the kernel processes at a time.
struct Tile {
  int rows, keys;
};
Tile GetTile(const Params& params, bool paged);

// Sets which keys a query sees: is_causal, is_local and the window. `keys` is at least the number
// of keys of the longest sequence.
void SetMask(Params* params, bool causal, int64_t left, int64_t right, int64_t keys);

// Chooses among the compiled kernels and sets pagedkv_tma, num_splits and pack_gqa. Sizes, mask and
// pages must be set before.
//   keys          of the longest sequence
//   num_splits    the maximum number of parts of a sequence; below 1: as many as fill the GPU
//   packed        whether heads that share keys are rows of one tile, where both are possible
// Throws std::runtime_error that names the missing kernel; the message begins with `op`.
Variant Choose(Params* params, const std::string& op, int64_t keys, int64_t num_splits,
               std::optional<bool> packed);

// Returns how many int32 numbers the division of the work needs.
int64_t GetScheduleSize(const Params& params);

// Points `params` to `memory`, which has room for GetScheduleSize numbers.
void PlaceSchedule(Params* params, int* memory);

}  // namespace vllm::flash3
