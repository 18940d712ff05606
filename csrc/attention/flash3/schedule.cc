// SPDX-License-Identifier: Apache-2.0
#include "attention/flash3/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <tuple>

#include "attention/flash3/run.h"
#include "core/gpu/stream.h"

// FlashAttention's header, which requires <algorithm> and <cmath> but does not include them.
#include <heuristics.h>
#include <tile_size.h>

namespace vllm::flash3 {
namespace {

constexpr int kElementSize = 2;
// A caller may ask for more parts; more are never chosen.
constexpr int kMostChosenSplits = 128;
// The number of sequences that the scheduling kernel handles in one thread block. Only with one
// block may the next kernel begin before this one ends.
constexpr int kSequencesOfOneBlock = 992;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The kernels read these numbers four at a time.
int64_t RoundUpSequences(const Params& params) { return CeilDivide(params.b, 4) * 4; }

// Each sequence has these numbers: its parts, its tiles, its place when the longest sequences come
// first, and the number of heads whose keys stay in the cache together.
bool IsSorted(const Params& params) { return !params.is_local; }
bool IsSwizzled(const Params& params) { return params.is_causal || params.is_local; }

Variant WithPacking(Variant variant, bool packed) {
  variant.packed = packed || variant.split || variant.paged;
  return variant;
}

bool HasEither(const Params& params, Variant variant) {
  return IsCompiled(params, WithPacking(variant, false)) ||
         IsCompiled(params, WithPacking(variant, true));
}

int CountSplitsThatFill(const Params& params, Variant variant, int64_t keys) {
  const Tile tile = GetTile(params, variant.paged);
  if (params.is_local) {
    keys =
        std::max<int64_t>(0, std::min<int64_t>(keys, int64_t{params.window_size_right} +
                                                         params.window_size_left + 1 + tile.rows));
  }
  const int64_t blocks = CeilDivide(keys, tile.keys);
  const int64_t tiles = CeilDivide(int64_t{params.seqlen_q} * (params.h / params.h_k), tile.rows);
  const int64_t bytes = std::min<int64_t>(keys * (params.d + params.dv) * kElementSize,
                                          std::numeric_limits<int>::max());
  // This is an upper bound. The GPU, which knows all lengths, decides how many parts each sequence
  // gets.
  return num_splits_heuristic(static_cast<int>(params.h_k * tiles), params.num_sm,
                              static_cast<int>(blocks), static_cast<int>(tiles),
                              static_cast<int>(bytes), params.is_causal || params.is_local,
                              kMostChosenSplits);
}

}  // namespace

Tile GetTile(const Params& params, bool paged) {
  const auto sizes =
      tile_size_fwd_sm90(params.d_rounded, params.dv_rounded, params.is_causal, params.is_local,
                         kElementSize, false, paged, params.softcap > 0);
  return {std::get<0>(sizes), std::get<1>(sizes)};
}

void SetMask(Params* params, bool causal, int64_t left, int64_t right, int64_t keys) {
  const int64_t queries = params->seqlen_q;
  if (left >= keys - 1) left = -1;
  if (right >= queries - 1) right = -1;
  // Nothing follows a single query. For pages of larger heads, the tile of the causal kernel is
  // better.
  const bool better_causal = params->d > 64 && params->d <= 128 && params->page_table != nullptr;
  if (queries == 1 && left < 0 && right < 0 && !better_causal) causal = false;
  if (causal) right = 0;
  params->is_causal = left < 0 && right == 0;
  params->is_local = !params->is_causal && (left >= 0 || right >= 0);
  params->window_size_left = static_cast<int>(left < 0 ? keys - 1 : left);
  params->window_size_right = static_cast<int>(right < 0 ? queries - 1 : right);
}

Variant Choose(Params* params, const std::string& op, int64_t keys, int64_t num_splits,
               std::optional<bool> packed) {
  const auto missing = [&](Variant variant) {
    throw std::runtime_error(op + ": this library has no kernel for " +
                             DescribeVariant(*params, variant) +
                             ", expected a library built with VLLM_FA_SET=full");
  };
  if (num_splits > kMostSplits) {
    throw std::runtime_error(op + ": num_splits is " + std::to_string(num_splits) +
                             ", expected at most " + std::to_string(kMostSplits));
  }
  Variant variant{};
  variant.softcap = params->softcap > 0;
  if (params->page_table != nullptr) {
    const Tile tile = GetTile(*params, false);
    const bool blocks = params->page_size % tile.keys == 0 && params->leftpad_k == nullptr &&
                        params->knew_ptr == nullptr;
    // With few queries, reading keys takes most of the time, and looking up rows is faster.
    const bool many = int64_t{params->seqlen_q} * (params->h / params->h_k) > tile.rows;
    variant.paged = !(blocks && many);
    Variant other = variant;
    other.paged = !variant.paged;
    if (blocks && !HasEither(*params, variant) && HasEither(*params, other)) variant = other;
    params->pagedkv_tma = !variant.paged;
  }

  Variant split = variant;
  split.split = true;
  split = WithPacking(split, true);
  const bool can_split = IsCompiled(*params, split) && CanCombine();
  if (num_splits > 1 && !can_split) missing(split);
  if (num_splits < 1) num_splits = can_split ? CountSplitsThatFill(*params, variant, keys) : 1;
  params->num_splits = static_cast<int>(num_splits);
  variant.split = num_splits > 1;

  const bool can_pack = IsCompiled(*params, WithPacking(variant, true));
  // Packing pays if the number of queries differs between sequences, or if tiles would otherwise be
  // emptier.
  const auto worth = [&] {
    return params->h != params->h_k &&
           should_pack_gqa(params->cu_seqlens_q != nullptr || params->seqused_q != nullptr,
                           params->seqlen_q, params->h / params->h_k,
                           GetTile(*params, variant.paged).rows);
  };
  variant = WithPacking(variant, packed.value_or(can_pack && worth()));
  if (!IsCompiled(*params, variant)) missing(variant);
  params->pack_gqa = variant.packed;
  return variant;
}

int64_t GetScheduleSize(const Params& params) {
  return RoundUpSequences(params) *
             (2 + (IsSorted(params) ? 1 : 0) + (IsSwizzled(params) ? 1 : 0)) +
         1;
}

void PlaceSchedule(Params* params, int* memory) {
  const int64_t each = RoundUpSequences(*params);
  int* next = memory;
  const auto take = [&](bool wanted) {
    int* const place = wanted ? next : nullptr;
    if (wanted) next += each;
    return place;
  };
  params->varlen_sort_batches = IsSorted(*params);
  params->head_swizzle = IsSwizzled(*params);
  params->num_splits_dynamic_ptr = take(true);
  params->num_m_blocks_ptr = take(true);
  params->varlen_batch_idx_ptr = take(params->varlen_sort_batches);
  params->num_nheads_in_l2_ptr = take(params->head_swizzle);
  params->tile_count_semaphore = next;
  params->tile_count_semaphore_offset = static_cast<int>(next - memory);
  params->prepare_varlen_pdl = params->b <= kSequencesOfOneBlock;
}

}  // namespace vllm::flash3
