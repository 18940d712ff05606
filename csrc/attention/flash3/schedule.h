// SPDX-License-Identifier: Apache-2.0
// Which kernel runs, into how many parts keys are split, and where the kernels keep how their work
// is divided. The op that computes and the one that divides ahead of it must come to the same
// answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "attention/flash3/registry.h"

namespace vllm::flash3 {

// The kernel that combines parts has no code for more.
inline constexpr int64_t kMostSplits = 256;

// Rows of queries and keys that a thread block of the kernel takes at a time.
struct Tile {
  int rows, keys;
};
Tile TileOf(const Params& params, bool paged);

// Which keys a query sees; `keys` is the number of the longest sequence's or more. Sets is_causal,
// is_local and the window.
void SetMask(Params* params, bool causal, int64_t left, int64_t right, int64_t keys);

// Chooses among the kernels that are compiled, and sets pagedkv_tma, num_splits and pack_gqa.
// Sizes, mask and pages are set before.
//   keys          of the longest sequence
//   num_splits    at most so many parts for a sequence; below 1 as many as fill the GPU
//   packed        whether heads that share keys are rows of one tile, where there is a choice
// Throws std::runtime_error that names what is not compiled: `op` begins the message.
Variant Choose(Params* params, const std::string& op, int64_t keys, int64_t num_splits,
               std::optional<bool> packed);

// int32 numbers that the division of the work takes.
int64_t ScheduleSize(const Params& params);

// Points `params` into `memory` of ScheduleSize numbers.
void PlaceSchedule(Params* params, int* memory);

}  // namespace vllm::flash3
