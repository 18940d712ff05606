// SPDX-License-Identifier: Apache-2.0
#include "cache/cache.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/gpu/groups.h"
#include "core/gpu/launch.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kThreads = 256;
constexpr int kMaxLaneBits = 8;

// A write, and the numbers that locate its elements without a division.
struct Placement {
  CacheWrite write;
  int chunk_bits = -1;  // chunk = 1 << chunk_bits; -1: chunk is not a power of two
  bool whole = false;   // elements that are loaded at once are adjacent in the cache too, and are
                        // stored at once

  // Returns the distance from the beginning of a vector to its element d.
  __device__ __forceinline__ int64_t GetOffset(int64_t d) const {
    const PagedCache& to = write.to;
    if (to.chunk == write.from.width) return d;
    if (chunk_bits >= 0) return (d >> chunk_bits) * to.chunk_stride + (d & (to.chunk - 1));
    return d / to.chunk * to.chunk_stride + d % to.chunk;
  }
};

struct Placements {
  Placement items[2];
};

template <typename From, typename To>
__device__ __forceinline__ To ToStored(From x, float scale) {
  if constexpr (std::is_same_v<From, To>) {
    return x;
  } else {
    return ToFp8<To>(ToFloat(x) / scale);
  }
}

// One block for each token (x) and write (y). Its groups of lanes iterate over the heads, and the
// lanes of a group over a head's vector; a step processes kCount elements. Without a conversion,
// From and To are the same type, of which only the size matters.
template <int kCount, typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    WriteTokens(Placements placements, Slots slots, Groups groups) {
  const Placement& placement = placements.items[blockIdx.y];
  const TokenVectors& from = placement.write.from;
  const PagedCache& to = placement.write.to;
  const int64_t steps = from.width / kCount;
  for (int64_t token = blockIdx.x; token < slots.tokens; token += gridDim.x) {
    const int64_t slot = slots.data[token * slots.stride];
    if (slot < 0 || slot >= slots.end) continue;
    const int64_t block = slot / to.block_size, offset = slot - block * to.block_size;
    const int64_t group = to.group == to.block_size ? 0 : offset / to.group;
    To* base = static_cast<To*>(to.data) + block * to.block_stride + group * to.group_stride +
               (offset - group * to.group) * to.token_stride;
    const From* source = static_cast<const From*>(from.data) + token * from.token_stride;
    for (int64_t head = groups.group(); head < from.heads; head += groups.count()) {
      float scale = 1.0f;
      if constexpr (!std::is_same_v<From, To>) {
        if (placement.write.scales != nullptr)
          scale = placement.write.scales[head * placement.write.scale_stride];
      }
      const From* row = source + head * from.head_stride;
      To* target = base + head * to.head_stride;
      for (int64_t step = groups.lane(); step < steps; step += groups.lanes()) {
        const int64_t d = step * kCount;
        const Pack<From, kCount> loaded = LoadPack<kCount>(row + d);
        Pack<To, kCount> stored;
#pragma unroll
        for (int k = 0; k < kCount; ++k)
          stored.items[k] = ToStored<From, To>(loaded.items[k], scale);
        if (placement.whole) {
          StorePack(target + placement.GetOffset(d), stored);
        } else {
#pragma unroll
          for (int k = 0; k < kCount; ++k) target[placement.GetOffset(d + k)] = stored.items[k];
        }
      }
    }
  }
}

// Whether kCount elements can be loaded at a time and, if they stay together, stored at a time.
template <int kCount, typename From, typename To>
bool CanUsePacks(Placement& placement) {
  const TokenVectors& from = placement.write.from;
  const PagedCache& to = placement.write.to;
  constexpr int64_t kFrom = sizeof(From), kTo = sizeof(To);
  const auto aligned = [](int64_t count, int64_t stride, int64_t size) {
    return count <= 1 || stride * size % (size * kCount) == 0;
  };
  if (from.width % kCount != 0 || !IsAligned(from.data, kFrom * kCount)) return false;
  // The stride matters even for a single token, because the number of tokens may vary.
  if (!aligned(2, from.token_stride, kFrom) || !aligned(from.heads, from.head_stride, kFrom))
    return false;
  placement.whole = to.chunk % kCount == 0 && IsAligned(to.data, kTo * kCount) &&
                    aligned(2, to.block_stride, kTo) && aligned(from.heads, to.head_stride, kTo) &&
                    aligned(to.block_size / to.group, to.group_stride, kTo) &&
                    aligned(to.group, to.token_stride, kTo) &&
                    aligned(to.chunk == 0 ? 1 : from.width / to.chunk, to.chunk_stride, kTo);
  return true;
}

template <int kCount, typename From, typename To>
void WriteSteps(const Placements& placements, int count, const Slots& slots) {
  Groups groups;
  for (int i = 0; i < count; ++i) {
    const TokenVectors& from = placements.items[i].write.from;
    const Groups mine = ChooseGroups(from.width / kCount, from.heads, kMaxLaneBits, kThreads);
    // Both writes use one block shape: the one for the longer rows, with more threads.
    groups.lane_bits = std::max(groups.lane_bits, mine.lane_bits);
    groups.threads = std::max(groups.threads, mine.threads);
  }
  const int lanes = 1 << groups.lane_bits;
  groups.threads = (groups.threads + lanes - 1) / lanes * lanes;
  const dim3 blocks(ChooseBlocks(slots.tokens, 1), static_cast<unsigned>(count));
  Launch("write_to_cache", &WriteTokens<kCount, From, To>, blocks, groups.threads, 0, placements,
         slots, groups);
}

template <typename From, typename To>
void WriteAs(Placements placements, int count, const Slots& slots) {
  constexpr int kCount = kPerLoad<From>;
  bool packed = true;
  for (int i = 0; i < count; ++i)
    packed = CanUsePacks<kCount, From, To>(placements.items[i]) && packed;
  if (packed) return WriteSteps<kCount, From, To>(placements, count, slots);
  for (int i = 0; i < count; ++i) placements.items[i].whole = true;  // single elements are
  WriteSteps<1, From, To>(placements, count, slots);
}

}  // namespace

void WriteToCache(const CacheWrite* writes, int count, const Slots& slots) {
  if (slots.tokens == 0 || slots.end == 0) return;
  Placements placements;
  for (int i = 0; i < count; ++i) {
    Placement& placement = placements.items[i];
    placement.write = writes[i].MergeHeads();
    for (int bits = 0; bits < 16; ++bits) {
      if (placement.write.to.chunk == int64_t{1} << bits) placement.chunk_bits = bits;
    }
  }
  const CacheWrite& first = writes[0];
  if (first.to.format == CacheFormat::kSame) {
    switch (first.from.element_size) {
      case 1:
        return WriteAs<uint8_t, uint8_t>(placements, count, slots);
      case 2:
        return WriteAs<uint16_t, uint16_t>(placements, count, slots);
      default:
        return WriteAs<uint32_t, uint32_t>(placements, count, slots);
    }
  }
  WithType(first.from.dtype, [&](auto element) {
    using From = decltype(element);
    if (first.to.format == CacheFormat::kE4m3) {
      WriteAs<From, E4M3>(placements, count, slots);
    } else {
      WriteAs<From, E5M2>(placements, count, slots);
    }
  });
}

}  // namespace vllm
