// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attention/attention.h"
#include "attention/tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/latent_attention_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "attention/head_rows-inl.h"
#include "attention/latent_products-inl.h"
#include "attention/softmax-inl.h"
#include "core/simd-inl.h"
#include "core/with_type-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Finds the request's latent rows [begin, end) in the cache, at most kKeys. Those after the last
// one, up to a multiple of kScoreKeys, are the last one's.
template <typename T>
HWY_INLINE void FindRows(const LatentAttention& call, const LatentTile& tile, int64_t begin,
                         int64_t end, const T** rows) {
  size_t i = 0;
  for (int64_t key = begin; key < end; ++key) {
    const int64_t block = tile.block_table[key / call.block_size];
    rows[i++] = static_cast<const T*>(call.cache) + block * call.block_stride +
                key % call.block_size * call.token_stride;
  }
  for (; i % kScoreKeys != 0; ++i) rows[i] = rows[i - 1];
}

// Converts rows of n elements to float32 in the tile's memory, and prefetches those of `next`.
template <typename T>
HWY_INLINE void ConvertRows(const LatentTile& tile, const T* const* rows, const T* const* next,
                            size_t count, size_t n, const float** converted) {
  constexpr size_t kLine = 64 / sizeof(T);
  for (size_t i = 0; i < count; ++i) {
    for (size_t e = 0; e < n; e += kLine) Prefetch(next[i] + e);
    float* to = tile.latent + i * tile.latent_stride;
    Convert(rows[i], to, n);
    converted[i] = to;
  }
}

// Attends to rows of T with products of A.
template <typename A, typename T>
HWY_NOINLINE void AttendRows(const LatentAttention& call, const LatentTile& tile) {
  constexpr int64_t kKeys = LatentTile::kKeys;
  const size_t width = static_cast<size_t>(call.head_size),
               value = static_cast<size_t>(call.value_size);
  A* query = As<A>(tile.query);
  LoadQueryRows(tile, width, tile.latent_stride, query,
                [&](size_t row) HWY_ATTR { return tile.Row<const T>(call.query, row); });
  ScoreTerms terms;
  terms.scale = call.scale * kLog2E;
  A* weights = GetWeights<A>(tile);
  const T *rows[kKeys] = {}, *next[kKeys] = {};
  for (int64_t begin = tile.keys_begin; begin < tile.keys_end; begin += kKeys) {
    const int64_t end = std::min(begin + kKeys, tile.keys_end);
    const size_t keys = static_cast<size_t>(end - begin);
    FindRows(call, tile, begin, end, rows);
    std::copy(rows, rows + kKeys, next);
    FindRows(call, tile, end, std::min(end + kKeys, tile.keys_end), next);
    const A* converted[kKeys] = {};
    const A *const *from, *const *ahead;
    if constexpr (hwy::IsSame<A, T>()) {
      from = rows;
      ahead = next;
    } else {
      ConvertRows(tile, rows, next, (keys + kScoreKeys - 1) / kScoreKeys * kScoreKeys, width,
                  converted);
      from = converted;
      ahead = converted;
    }
    ComputeLatentScores(tile.rows, keys, width, query, tile.latent_stride, from, ahead, tile.scores,
                        kKeys);
    for (size_t row = 0; row < tile.rows; ++row) {
      const float factor = ApplySoftmax(tile.scores + row * kKeys, 0, keys, keys, terms,
                                        weights + row * kKeys, tile.states[row]);
      if (factor != 1.0f) ScaleRow(tile.sums + row * tile.sum_stride, tile.sum_stride, factor);
    }
    for (size_t row = 0, n; row < tile.rows; row += n) {
      n = ChooseBlockRows(tile.rows - row);
      AddLatentValues(n, keys, value, weights + row * kKeys, kKeys, from,
                      tile.sums + row * tile.sum_stride, tile.sum_stride);
    }
  }
}

// Computes the sums and states of the tile. The sums are not yet divided.
void AttendLatent(const LatentAttention& call, const LatentTile& tile) {
#if VLLM_WORDS
  if (call.query.tokens.dtype == DType::kBFloat16)
    return AttendRows<hwy::bfloat16_t, hwy::bfloat16_t>(call, tile);
#endif
  WithType(call.query.tokens.dtype,
           [&](auto element) HWY_ATTR { AttendRows<float, decltype(element)>(call, tile); });
}

void FinishLatent(const LatentAttention& call, const LatentTile& tile) {
  WithType(call.query.tokens.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    StoreOutputRows<T>(tile, static_cast<size_t>(call.value_size), 1.0f,
                       [&](size_t row) HWY_ATTR { return tile.Row<T>(call.output, row); });
  });
}

void AddLatentPart(const LatentTile& tile, const float* sums, const RowState* states) {
  AddRows(sums, states, tile.sums, tile.states, tile.rows, tile.sum_stride);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <utility>
#include <vector>

#include "attention/jobs.h"
#include "attention/tile_memory.h"
#include "core/cpu_dispatch.h"

namespace vllm {

HWY_EXPORT(AttendLatent);
HWY_EXPORT(FinishLatent);
HWY_EXPORT(AddLatentPart);

namespace {

// Below this many keys, merging costs more than another thread gains.
constexpr int64_t kMinChunk = 128;
constexpr int64_t kPiecesPerThread = 4;

// The memory for the tiles of one thread.
class LatentMemory {
 public:
  explicit LatentMemory(const LatentAttention& call)
      : call_(call), states_(LatentTile::kHeads), tile_(MakeTile(call)), floats_(CutTile(&tile_)) {
    tile_.states = states_.data();
  }

  LatentTile& Begin(int64_t request, int64_t first_head, int64_t begin, int64_t end) {
    tile_.request = request;
    tile_.first_head = first_head;
    tile_.rows = static_cast<size_t>(std::min(LatentTile::kHeads, call_.query.heads - first_head));
    tile_.block_table = call_.block_table + request * call_.block_table_stride;
    tile_.keys_begin = begin;
    tile_.keys_end = end;
    std::fill(tile_.sums, tile_.sums + tile_.rows * tile_.sum_stride, 0.0f);
    std::fill(states_.begin(), states_.end(), RowState());
    return tile_;
  }

 private:
  static LatentTile MakeTile(const LatentAttention& call) {
    LatentTile tile;
    tile.latent_stride = RoundUpToPanel(static_cast<size_t>(call.head_size));
    tile.sum_stride = RoundUpToPanel(static_cast<size_t>(call.value_size));
    return tile;
  }

  static std::vector<std::pair<float**, size_t>> CutTile(LatentTile* tile) {
    constexpr size_t kHeads = static_cast<size_t>(LatentTile::kHeads),
                     kKeys = static_cast<size_t>(LatentTile::kKeys);
    return {{&tile->query, kHeads * tile->latent_stride},
            {&tile->sums, kHeads * tile->sum_stride},
            {&tile->scores, kHeads * kKeys},
            {&tile->weights, kHeads * kKeys / 2},
            {&tile->latent, kKeys * tile->latent_stride}};
  }

  const LatentAttention& call_;
  std::vector<RowState> states_;
  LatentTile tile_;
  TileFloats floats_;
};

// One part of a request's keys for some heads. The parts of a tile follow each other and are merged
// if there are several.
struct LatentItem {
  int64_t request;
  int64_t first_head;
  int64_t begin;
  int64_t end;
  int64_t parts;
};

std::vector<LatentItem> CutIntoItems(const LatentAttention& call) {
  const int64_t requests = static_cast<int64_t>(call.seq_lens.size());
  const int64_t head_tiles = (call.query.heads + LatentTile::kHeads - 1) / LatentTile::kHeads;
  int64_t total = 0;
  for (const int64_t length : call.seq_lens) total += length * head_tiles;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t chunk =
      threads == 1 ? INT64_MAX / 4 : std::max(kMinChunk, total / (threads * kPiecesPerThread));
  std::vector<LatentItem> items;
  for (int64_t request = 0; request < requests; ++request) {
    const int64_t length = call.seq_lens[static_cast<size_t>(request)];
    const int64_t parts = std::max<int64_t>(1, (length + chunk / 2) / chunk);
    for (int64_t head = 0; head < call.query.heads; head += LatentTile::kHeads) {
      for (int64_t i = 0; i < parts; ++i)
        items.push_back({request, head, length * i / parts, length * (i + 1) / parts, parts});
    }
  }
  return items;
}

}  // namespace

void RunLatentAttention(const LatentAttention& call) {
  const std::vector<LatentItem> items = CutIntoItems(call);
  const size_t sum_stride = RoundUpToPanel(static_cast<size_t>(call.value_size)),
               rows = static_cast<size_t>(LatentTile::kHeads);
  // Only the sums of parts that are merged must be kept.
  std::vector<int64_t> slots(items.size());
  std::vector<size_t> merged;
  int64_t keys = 0, parts = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    keys += items[i].end - items[i].begin;
    slots[i] = parts;
    if (items[i].parts == 1) continue;
    if (items[i].begin == 0) merged.push_back(i);
    ++parts;
  }
  std::vector<float> part_sums(static_cast<size_t>(parts) * rows * sum_stride);
  std::vector<RowState> part_states(static_cast<size_t>(parts) * rows);

  auto& attend = VLLM_CPU_DISPATCH(AttendLatent);
  auto& finish = VLLM_CPU_DISPATCH(FinishLatent);
  auto& add = VLLM_CPU_DISPATCH(AddLatentPart);
  const auto memory = [&] { return LatentMemory(call); };
  RunJobs(static_cast<int64_t>(items.size()), keys * call.head_size, memory,
          [&](int64_t job, LatentMemory& mine) {
            const LatentItem& item = items[static_cast<size_t>(job)];
            LatentTile& tile = mine.Begin(item.request, item.first_head, item.begin, item.end);
            attend(call, tile);
            if (item.parts == 1) return finish(call, tile);
            const size_t at = static_cast<size_t>(slots[static_cast<size_t>(job)]) * rows;
            std::copy(tile.sums, tile.sums + tile.rows * sum_stride, &part_sums[at * sum_stride]);
            std::copy(tile.states, tile.states + tile.rows, &part_states[at]);
          });
  RunJobs(static_cast<int64_t>(merged.size()), parts * static_cast<int64_t>(rows * sum_stride),
          memory, [&](int64_t job, LatentMemory& mine) {
            const size_t first = merged[static_cast<size_t>(job)];
            LatentTile& tile = mine.Begin(items[first].request, items[first].first_head, 0, 0);
            for (int64_t i = 0; i < items[first].parts; ++i) {
              const size_t at = static_cast<size_t>(slots[first] + i) * rows;
              add(tile, &part_sums[at * sum_stride], &part_states[at]);
            }
            finish(call, tile);
          });
}

}  // namespace vllm
#endif  // HWY_ONCE
