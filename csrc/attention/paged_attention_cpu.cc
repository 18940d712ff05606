// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstddef>
#include <cstdint>

#include "attention/attention.h"
#include "attention/tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/paged_attention_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "attention/paged_attention-inl.h"
#include "core/with_type-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

template <typename T>
void AttendAs(const Tile& tile) {
  if (hwy::IsSame<T, float>() || tile.rows <= Tile::kDirectRows) {
    AttendDirectly<float, T>(tile);
  } else if constexpr (!hwy::IsSame<T, float>()) {
    AttendPacked<T>(tile);
  }
}

// Computes the sums and states of the tile. The sums are not yet divided.
void AttendTile(const Tile& tile) {
#if VLLM_WORDS
  using BFloat16 = hwy::bfloat16_t;
  if (tile.call->InBFloat16()) {
    LoadQueries<BFloat16, BFloat16>(tile);
    return AttendDirectly<BFloat16, BFloat16>(tile);
  }
#endif
  WithType(tile.call->query.tokens.dtype,
           [&](auto element) HWY_ATTR { LoadQueries<float, decltype(element)>(tile); });
  switch (tile.call->key.dtype) {
    case CacheDType::kFloat32:
      return AttendAs<float>(tile);
    case CacheDType::kBFloat16:
      return AttendAs<hwy::bfloat16_t>(tile);
    case CacheDType::kFloat16:
      return AttendAs<hwy::float16_t>(tile);
    case CacheDType::kFloat8E4M3:
      return AttendAs<E4M3>(tile);
    case CacheDType::kFloat8E5M2:
      return AttendAs<E5M2>(tile);
  }
}

// Computes the tile's output from its sums and states.
void FinishTile(const Tile& tile) {
  WithType(tile.call->output.tokens.dtype,
           [&](auto element) HWY_ATTR { StoreOutput<decltype(element)>(tile); });
}

// Adds the sums of other keys of the same rows to those of the tile.
void AddPart(const Tile& tile, const float* sums, const RowState* states) {
  AddRows(sums, states, tile.sums, tile.states, tile.rows, tile.sum_stride);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "attention/jobs.h"
#include "attention/tile_memory.h"
#include "core/cpu_dispatch.h"

namespace vllm {

HWY_EXPORT(AttendTile);
HWY_EXPORT(FinishTile);
HWY_EXPORT(AddPart);

namespace {

// Returns the state of a row whose sum is exp(sink) only. A sink of -infinity adds nothing; with a
// sink of NaN or +infinity, the sum is NaN.
RowState MakeSinkState(float sink) {
  if (std::isfinite(sink)) return {sink * kLog2E, 1.0f};
  return {RowState().largest, sink < 0 ? 0.0f : std::numeric_limits<float>::quiet_NaN()};
}

// The memory for the tiles of one thread.
class TileMemory {
 public:
  TileMemory(const PagedAttention& call, size_t rows)
      : states_(rows), visible_(rows), tile_(MakeTile(call)), floats_(CutTile(&tile_, rows)) {
    tile_.states = states_.data();
    tile_.visible = visible_.data();
  }

  // Returns the tile of a work item, with sums of zero.
  Tile& Begin(const WorkItem& item, int64_t key_head) {
    const PagedAttention& call = *tile_.call;
    tile_.item = &item;
    tile_.request = &call.requests[static_cast<size_t>(item.request)];
    tile_.block_table = call.block_table + item.request * call.block_table_stride;
    tile_.key_head = key_head;
    tile_.rows = static_cast<size_t>(item.tokens) * tile_.group;
    std::fill(tile_.sums, tile_.sums + tile_.rows * tile_.sum_stride, 0.0f);
    for (size_t row = 0; row < tile_.rows; ++row) {
      Visible keys = FindVisibleKeys(*tile_.request, tile_.TokenOfRow(row), call.window);
      keys.end = std::min(keys.end, item.keys_end);
      keys.begin = std::clamp(keys.begin, std::min(item.keys_begin, keys.end), keys.end);
      tile_.visible[row] = keys;
      tile_.states[row] = RowState();
      if (call.sinks != nullptr && item.split == 0) {
        tile_.states[row] = MakeSinkState(call.sinks[tile_.HeadOfRow(row)]);
      }
    }
    return tile_;
  }

 private:
  static Tile MakeTile(const PagedAttention& call) {
    Tile tile;
    tile.call = &call;
    tile.group = static_cast<size_t>(call.query.heads / call.key.heads);
    tile.head_size = static_cast<size_t>(call.key.head_size);
    tile.sum_stride = RoundUpToPanel(tile.head_size);
    return tile;
  }

  // The incomplete panel of values keeps its padding of zeros.
  static std::vector<std::pair<float**, size_t>> CutTile(Tile* tile, size_t rows) {
    const bool packed = rows > Tile::kDirectRows;
    return {{&tile->query, rows * tile->head_size},
            {&tile->sums, rows * tile->sum_stride},
            {&tile->scores, rows * Tile::kKeys},
            {&tile->weights, tile->call->InBFloat16() ? rows * Tile::kKeys / 2 : 0},
            {&tile->packed_keys, packed ? tile->head_size * Tile::kKeys : 0},
            {&tile->packed_values, packed ? tile->sum_stride * Tile::kKeys : 0},
            {&tile->value_tail,
             static_cast<size_t>(tile->call->value.block_size * CachePages::kPanel)}};
  }

  std::vector<RowState> states_;
  std::vector<Visible> visible_;
  Tile tile_;
  TileFloats floats_;
};

}  // namespace

void RunPagedAttention(const PagedAttention& call) {
  const std::vector<WorkItem> items = MakeWorkItems(call.requests, call.cuts, call.window);
  const int64_t heads = call.key.heads;
  const size_t group = static_cast<size_t>(call.query.heads / heads);
  const size_t sum_stride = RoundUpToPanel(static_cast<size_t>(call.key.head_size));
  size_t rows = 0, split_rows = 0;
  int64_t keys = 0, parts = 0;
  std::vector<const WorkItem*> split;
  for (const WorkItem& item : items) {
    const size_t mine = static_cast<size_t>(item.tokens) * group;
    rows = std::max(rows, mine);
    keys += (item.keys_end - item.keys_begin) * item.tokens;
    if (item.splits == 1) continue;
    ++parts;
    split_rows = std::max(split_rows, mine);
    if (item.split == 0) split.push_back(&item);
  }

  // Sums and states of the parts that are merged afterwards, by part and key head.
  std::vector<float> part_sums(static_cast<size_t>(parts * heads) * split_rows * sum_stride);
  std::vector<RowState> part_states(static_cast<size_t>(parts * heads) * split_rows);
  const auto part = [&](int64_t slot, int64_t head) {
    return static_cast<size_t>(slot * heads + head) * split_rows;
  };

  auto& attend = VLLM_CPU_DISPATCH(AttendTile);
  auto& finish = VLLM_CPU_DISPATCH(FinishTile);
  auto& add = VLLM_CPU_DISPATCH(AddPart);
  const int64_t elements = keys * call.query.heads * call.key.head_size;
  RunJobs(
      static_cast<int64_t>(items.size()) * heads, elements, [&] { return TileMemory(call, rows); },
      [&](int64_t job, TileMemory& memory) {
        const WorkItem& item = items[static_cast<size_t>(job / heads)];
        Tile& tile = memory.Begin(item, job % heads);
        attend(tile);
        if (item.splits == 1) return finish(tile);
        const size_t at = part(item.slot, tile.key_head);
        std::copy(tile.sums, tile.sums + tile.rows * sum_stride, &part_sums[at * sum_stride]);
        std::copy(tile.states, tile.states + tile.rows, &part_states[at]);
      });
  if (split.empty()) return;
  RunJobs(
      static_cast<int64_t>(split.size()) * heads, elements / CachePages::kPanel,
      [&] { return TileMemory(call, split_rows); },
      [&](int64_t job, TileMemory& memory) {
        const WorkItem& item = *split[static_cast<size_t>(job / heads)];
        Tile& tile = memory.Begin(item, job % heads);
        std::fill(tile.states, tile.states + tile.rows, RowState());
        for (int64_t i = 0; i < item.splits; ++i) {
          const size_t at = part(item.slot + i, tile.key_head);
          add(tile, &part_sums[at * sum_stride], &part_states[at]);
        }
        finish(tile);
      });
}

}  // namespace vllm
#endif  // HWY_ONCE
