// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>
#include <cstring>

#include "cache/cache.h"
#include "cache/slot_order.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cache/write_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include "cache/fp8_rows-inl.h"
#include "cache/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

template <typename Bits>
HWY_INLINE void Scatter(const Bits* HWY_RESTRICT from, int64_t width, Bits* HWY_RESTRICT to,
                        int64_t chunk, int64_t stride) {
  if (chunk == width) {
    std::memcpy(to, from, static_cast<size_t>(width) * sizeof(Bits));
  } else if (chunk == kTile<Bits>) {
    // This is upstream's layout. A copy of constant length compiles to one load and one store.
    for (int64_t i = 0; i < width; i += chunk, to += stride) std::memcpy(to, from + i, 16);
  } else {
    for (int64_t i = 0; i < width; i += chunk, to += stride)
      std::memcpy(to, from + i, static_cast<size_t>(chunk) * sizeof(Bits));
  }
}

// Writes one head of the tokens of a run, which are in the cache's own format. `to` is the first
// slot of their tile, and token t belongs columns[t] slots after it.
template <typename Bits>
HWY_INLINE void PlaceVectors(const Bits* const* from, const int64_t* columns, int64_t tokens,
                             int64_t width, const PagedCache& cache, Bits* to) {
  if (cache.chunk == 1 && cache.token_stride == 1) {
    Transpose(from, columns, tokens, width, to, cache.chunk_stride);
  } else {
    for (int64_t t = 0; t < tokens; ++t)
      Scatter(from[t], width, to + columns[t] * cache.token_stride, cache.chunk,
              cache.chunk_stride);
  }
}

template <typename Bits>
void WriteHead(const CacheWrite& write, const Placed* placed, int64_t tokens, int64_t head,
               uint8_t* scratch) {
  const TokenVectors& source = write.from;
  const PagedCache& cache = write.to;
  const int64_t block = placed->slot / cache.block_size, offset = placed->slot % cache.block_size;
  // A tile of a single slot begins at its token's slot.
  const int64_t first_column = tokens == 1 ? 0 : offset % cache.group % kTile<Bits>;
  Bits* to = static_cast<Bits*>(cache.data) + block * cache.block_stride +
             head * cache.head_stride + offset / cache.group * cache.group_stride +
             (offset % cache.group - first_column) * cache.token_stride;
  int64_t columns[kMaxRun];
  for (int64_t t = 0; t < tokens; ++t) columns[t] = first_column + placed[t].slot - placed->slot;
  const Bits* from[kMaxRun];
  if constexpr (sizeof(Bits) == 1) {
    if (cache.format != CacheFormat::kSame) {
      const float scale = write.scales == nullptr ? 1.0f : write.scales[head * write.scale_stride];
      const bool direct = cache.chunk == source.width;
      for (int64_t t = 0; t < tokens; ++t) {
        uint8_t* row = direct ? to + columns[t] * cache.token_stride : scratch + t * source.width;
        QuantizeRow(source.data, source.dtype,
                    placed[t].token * source.token_stride + head * source.head_stride,
                    static_cast<size_t>(source.width), scale, cache.format, row);
        from[t] = row;
      }
      if (!direct) PlaceVectors(from, columns, tokens, source.width, cache, to);
      return;
    }
  }
  for (int64_t t = 0; t < tokens; ++t) {
    from[t] = static_cast<const Bits*>(source.data) + placed[t].token * source.token_stride +
              head * source.head_stride;
  }
  PlaceVectors(from, columns, tokens, source.width, cache, to);
}

// Prefetches the memory that WriteHead will read and write. It writes parts of cache lines at
// addresses that the hardware's prefetchers cannot predict.
HWY_INLINE void PrefetchHead(const CacheWrite& write, const Placed* placed, int64_t tokens,
                             int64_t head) {
  const TokenVectors& source = write.from;
  const PagedCache& cache = write.to;
  const auto ask = [](const char* p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) hwy::Prefetch(p + i);
  };
  const int64_t size = static_cast<int64_t>(source.element_size),
                to_size = cache.format == CacheFormat::kSame ? size : 1;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t at = placed[t].token * source.token_stride + head * source.head_stride;
    ask(static_cast<const char*>(source.data) + at * size, source.width * size);
  }
  const int64_t block = placed->slot / cache.block_size, offset = placed->slot % cache.block_size;
  const int64_t to = block * cache.block_stride + head * cache.head_stride +
                     offset / cache.group * cache.group_stride +
                     offset % cache.group * cache.token_stride;
  const int64_t bytes =
      ((placed[tokens - 1].slot - placed->slot) * cache.token_stride + cache.chunk) * to_size;
  for (int64_t i = 0; i < source.width / cache.chunk; ++i) {
    ask(static_cast<const char*>(cache.data) + (to + i * cache.chunk_stride) * to_size, bytes);
  }
}

// Writes items [begin, end): the heads of all writes for the first run, then for the second, and so
// on. `scratch` has room for kMaxRun vectors. With `prefetch`, memory of the next item is
// prefetched.
void WriteItems(const CacheWrite* writes, int count, const Placed* placed, const Run* runs,
                int64_t begin, int64_t end, bool ask, uint8_t* scratch) {
  int64_t heads = 0;
  for (int i = 0; i < count; ++i) heads += writes[i].from.heads;
  const auto write_of = [&](int64_t head) {
    return head < writes->from.heads ? writes : writes + 1;
  };
  for (int64_t item = begin; item < end; ++item) {
    const int64_t next = item + 1;
    if (next < end && ask) {
      const CacheWrite* write = write_of(next % heads);
      const int64_t head = next % heads - (write == writes ? 0 : writes->from.heads);
      PrefetchHead(*write, placed + runs[next / heads].first, runs[next / heads].tokens, head);
    }
    const Run& run = runs[item / heads];
    const CacheWrite* write = write_of(item % heads);
    const int64_t head = item % heads - (write == writes ? 0 : writes->from.heads);
    const size_t size = write->to.format == CacheFormat::kSame ? write->from.element_size : 1;
    if (size == 4) {
      WriteHead<uint32_t>(*write, placed + run.first, run.tokens, head, scratch);
    } else if (size == 2) {
      WriteHead<uint16_t>(*write, placed + run.first, run.tokens, head, scratch);
    } else {
      WriteHead<uint8_t>(*write, placed + run.first, run.tokens, head, scratch);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <vector>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {
namespace {

HWY_EXPORT(WriteItems);

}  // namespace

void WriteToCache(const CacheWrite* writes, int count, const Slots& slots) {
  CacheWrite merged[2];
  int64_t heads = 0, width = 0, tile = 1;
  bool detour = false;  // fp8 that is not written in rows
  for (int i = 0; i < count; ++i) {
    merged[i] = writes[i].MergeHeads();
    heads += merged[i].from.heads;
    width = std::max(width, merged[i].from.width);
    detour = detour || (merged[i].to.format != CacheFormat::kSame &&
                        merged[i].to.chunk != merged[i].from.width);
    const bool transposed = merged[i].to.chunk == 1 && merged[i].to.token_stride == 1;
    if (transposed)
      tile = 16 / (merged[i].to.format == CacheFormat::kSame
                       ? static_cast<int64_t>(merged[i].from.element_size)
                       : 1);
  }
  // The layout of the values determines the tile; keys in chunks fit any tile within a block.
  const PagedCache& last = merged[count - 1].to;
  // Rows of a token fill whole cache lines. The batch's order, in which tokens are read, is then
  // better.
  const std::vector<Placed> placed =
      tile > 1 ? SortBySlot(slots.data, slots.stride, slots.tokens)
               : SelectTokensWithSlots(slots.data, slots.stride, slots.tokens);
  const std::vector<Run> runs = CutIntoRuns(
      placed, [&](int64_t slot) { return slot - slot % last.block_size % last.group % tile; });
  const int64_t items = static_cast<int64_t>(runs.size()) * heads,
                tokens = static_cast<int64_t>(placed.size());
  auto& function = VLLM_CPU_DISPATCH(WriteItems);
  ParallelFor(
      items, items == 0 ? 0 : width * tokens * heads / items, [&](int64_t begin, int64_t end) {
        std::vector<uint8_t> scratch(static_cast<size_t>(detour ? width * kMaxRun : 0));
        function(merged, count, placed.data(), runs.data(), begin, end, tile > 1, scratch.data());
      });
}

}  // namespace vllm
#endif  // HWY_ONCE
