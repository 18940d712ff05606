// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>
#include <cstring>

#include "cache/cache.h"
#include "cache/write.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cache/write_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "cache/fp8_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Tokens whose vectors are transposed together: the lanes of 16 bytes.
template <typename Bits>
inline constexpr int64_t kTile = 16 / sizeof(Bits);

#if !HWY_HAVE_SCALABLE  // vectors of unknown length cannot stand in an array
// to[d * stride + t] = from[t][d] for a square of kTile tokens and dimensions.
template <typename Bits>
HWY_INLINE void TransposeTile(const Bits* const* from, int64_t offset, Bits* HWY_RESTRICT to, int64_t stride) {
  constexpr size_t kLanes = kTile<Bits>;
  const hn::FixedTag<Bits, kLanes> d;
  hn::Vec<decltype(d)> a[kLanes], b[kLanes];
  for (size_t t = 0; t < kLanes; ++t) a[t] = hn::LoadU(d, from[t] + offset);
  // Interleaving the first half with the second moves the highest bit of the token's number to the bottom of the element's; after as many
  // steps as there are bits, tokens and elements have changed places.
  for (size_t step = 1; step < kLanes; step *= 2) {
    for (size_t i = 0; i < kLanes / 2; ++i) {
      b[2 * i] = hn::InterleaveLower(d, a[i], a[i + kLanes / 2]);
      b[2 * i + 1] = hn::InterleaveUpper(d, a[i], a[i + kLanes / 2]);
    }
    for (size_t i = 0; i < kLanes; ++i) a[i] = b[i];
  }
  for (size_t i = 0; i < kLanes; ++i) hn::StoreU(a[i], d, to + static_cast<int64_t>(i) * stride);
}
#endif

// to[d * stride + t] = from[t][d] for `tokens` <= kTile tokens.
template <typename Bits>
HWY_INLINE void Transpose(const Bits* const* from, int64_t tokens, int64_t width, Bits* HWY_RESTRICT to, int64_t stride) {
  int64_t i = 0;
#if !HWY_HAVE_SCALABLE
  if (tokens == kTile<Bits>) {
    for (; i + kTile<Bits> <= width; i += kTile<Bits>) TransposeTile(from, i, to + i * stride, stride);
  }
#endif
  for (; i < width; ++i) {
    for (int64_t t = 0; t < tokens; ++t) to[i * stride + t] = from[t][i];
  }
}

template <typename Bits>
HWY_INLINE void Scatter(const Bits* HWY_RESTRICT from, int64_t width, Bits* HWY_RESTRICT to, int64_t chunk, int64_t stride) {
  if (chunk == width) {
    std::memcpy(to, from, static_cast<size_t>(width) * sizeof(Bits));
  } else if (chunk == kTile<Bits>) {
    // What upstream's layout has: a copy of constant length is one load and one store.
    for (int64_t i = 0; i < width; i += chunk, to += stride) std::memcpy(to, from + i, 16);
  } else {
    for (int64_t i = 0; i < width; i += chunk, to += stride) std::memcpy(to, from + i, static_cast<size_t>(chunk) * sizeof(Bits));
  }
}

// One head of the tokens of one run, which are in the cache's own format.
template <typename Bits>
HWY_INLINE void Place(const Bits* const* from, int64_t tokens, int64_t width, const PagedCache& cache, Bits* to) {
  if (cache.chunk == 1 && cache.token_stride == 1) {
    Transpose(from, tokens, width, to, cache.chunk_stride);
  } else {
    for (int64_t t = 0; t < tokens; ++t) Scatter(from[t], width, to + t * cache.token_stride, cache.chunk, cache.chunk_stride);
  }
}

template <typename Bits>
void WriteHead(const CacheWrite& write, const Run& run, int64_t head, uint8_t* scratch) {
  const TokenVectors& source = write.from;
  const PagedCache& cache = write.to;
  const int64_t block = run.slot / cache.block_size, offset = run.slot % cache.block_size;
  Bits* to = static_cast<Bits*>(cache.data) + block * cache.block_stride + head * cache.head_stride +
             offset / cache.group * cache.group_stride + offset % cache.group * cache.token_stride;
  const int64_t first = run.token * source.token_stride + head * source.head_stride;
  const Bits* from[kMaxRun];
  if constexpr (sizeof(Bits) == 1) {
    if (cache.format != CacheFormat::kSame) {
      const float scale = write.scales[head * write.scale_stride];
      const bool direct = cache.chunk == source.width;
      for (int64_t t = 0; t < run.tokens; ++t) {
        uint8_t* row = direct ? to + t * cache.token_stride : scratch + t * source.width;
        QuantizeRow(source.data, source.dtype, first + t * source.token_stride, static_cast<size_t>(source.width), scale, cache.format,
                    row);
        from[t] = row;
      }
      if (!direct) Place(from, run.tokens, source.width, cache, to);
      return;
    }
  }
  for (int64_t t = 0; t < run.tokens; ++t) from[t] = static_cast<const Bits*>(source.data) + first + t * source.token_stride;
  Place(from, run.tokens, source.width, cache, to);
}

// Items [begin, end): the heads of all writes for the first run, then for the second. `scratch` has room for kMaxRun vectors.
void WriteItems(const CacheWrite* writes, int count, const Run* runs, int64_t begin, int64_t end, uint8_t* scratch) {
  int64_t heads = 0;
  for (int i = 0; i < count; ++i) heads += writes[i].from.heads;
  for (int64_t item = begin; item < end; ++item) {
    const Run& run = runs[item / heads];
    int64_t head = item % heads;
    const CacheWrite* write = writes;
    for (; head >= write->from.heads; ++write) head -= write->from.heads;
    const size_t size = write->to.format == CacheFormat::kSame ? write->from.element_size : 1;
    if (size == 4) {
      WriteHead<uint32_t>(*write, run, head, scratch);
    } else if (size == 2) {
      WriteHead<uint16_t>(*write, run, head, scratch);
    } else {
      WriteHead<uint8_t>(*write, run, head, scratch);
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

// Rows without a gap between the heads are one row, where one scale is theirs.
CacheWrite Merged(CacheWrite write) {
  TokenVectors& from = write.from;
  PagedCache& to = write.to;
  if (to.chunk == from.width && from.head_stride == from.width && to.head_stride == from.width && write.scale_stride == 0) {
    from.width *= from.heads;
    from.heads = 1;
    to.chunk = from.width;
  }
  return write;
}

// The tokens that go somewhere, taken together where their slots follow one another within a group of the cache.
std::vector<Run> Runs(const Slots& slots, const PagedCache& cache, int64_t longest) {
  std::vector<Run> runs;
  runs.reserve(static_cast<size_t>(slots.tokens));
  for (int64_t token = 0; token < slots.tokens; ++token) {
    const int64_t slot = slots.data[token * slots.stride];
    if (slot < 0) continue;
    if (!runs.empty() && longest > 1) {
      Run& last = runs.back();
      const bool next = last.token + last.tokens == token && last.slot + last.tokens == slot;
      // A run ends where a tile begins: later ones are whole tiles then.
      if (next && slot % cache.block_size % cache.group % longest != 0) {
        ++last.tokens;
        continue;
      }
    }
    runs.push_back({token, slot, 1});
  }
  return runs;
}

}  // namespace

void WriteToCache(const CacheWrite* writes, int count, const Slots& slots) {
  CacheWrite merged[2];
  int64_t heads = 0, width = 0, tile = 1;
  bool detour = false;  // fp8 that is not written in rows
  for (int i = 0; i < count; ++i) {
    merged[i] = Merged(writes[i]);
    heads += merged[i].from.heads;
    width = std::max(width, merged[i].from.width);
    detour = detour || (merged[i].to.format != CacheFormat::kSame && merged[i].to.chunk != merged[i].from.width);
    const bool transposed = merged[i].to.chunk == 1 && merged[i].to.token_stride == 1;
    if (transposed) tile = 16 / (merged[i].to.format == CacheFormat::kSame ? static_cast<int64_t>(merged[i].from.element_size) : 1);
  }
  // The values' layout decides about runs; keys in chunks fit any run within a block.
  const std::vector<Run> runs = Runs(slots, merged[count - 1].to, tile);
  auto& function = VLLM_CPU_DISPATCH(WriteItems);
  ParallelFor(static_cast<int64_t>(runs.size()) * heads, width * tile, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> scratch(static_cast<size_t>(detour ? width * kMaxRun : 0));
    function(merged, count, runs.data(), begin, end, scratch.data());
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
