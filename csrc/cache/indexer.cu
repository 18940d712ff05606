// SPDX-License-Identifier: Apache-2.0
#include "cache/indexer.h"

#include <algorithm>
#include <cstdint>

#include "cache/place.h"
#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// One warp for each token (x) and group (y); a lane processes kCount elements a step. The data of
// the second pass is still in the first-level cache.
template <int kCount, typename T>
__global__ void __launch_bounds__(kThreads)
    WriteKeys(TokenVectors keys, IndexerCache cache, Slots slots, bool powers_of_two) {
  for (int64_t token = int64_t{blockIdx.x} * kWarps + Warp(); token < slots.tokens;
       token += int64_t{gridDim.x} * kWarps) {
    const int64_t slot = slots.data[token * slots.stride];
    if (slot < 0 || slot >= slots.end) continue;
    const int64_t block = slot / cache.block_size, offset = slot - block * cache.block_size;
    for (int64_t group = blockIdx.y; group < cache.groups(); group += gridDim.y) {
      const T* from =
          static_cast<const T*>(keys.data) + token * keys.token_stride + group * cache.group;
      float most = 1e-4f;
      for (int64_t i = Lane() * kCount; i < cache.group; i += kWarp * kCount) {
        const Pack<T, kCount> pack = LoadPack<kCount>(from + i);
#pragma unroll
        for (int k = 0; k < kCount; ++k) most = LargerNumber(fabsf(ToFloat(pack.items[k])), most);
      }
      float scale = WarpReduce(most, Max()) / GetScaledMax<E4M3>();
      if (powers_of_two) scale = BitsToFloat((FloatToBits(scale) + 0x7fffffu) & 0x7f800000u);
      E4M3* to = reinterpret_cast<E4M3*>(cache.Key(block, offset)) + group * cache.group;
      for (int64_t i = Lane() * kCount; i < cache.group; i += kWarp * kCount) {
        const Pack<T, kCount> pack = LoadPack<kCount>(from + i);
        Pack<E4M3, kCount> codes;
#pragma unroll
        for (int k = 0; k < kCount; ++k)
          codes.items[k] = ToFp8<E4M3>(ToFloat(pack.items[k]) / scale);
        StorePack(to + i, codes);
      }
      if (Lane() == 0) cache.Scales(block, offset)[group] = scale;
    }
  }
}

// One warp for each token of the output; a lane copies kCount codes a step.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    GatherKeys(IndexerCache cache, Sequences sequences, uint8_t* keys, int64_t key_stride,
               float* scales, int64_t scale_stride) {
  for (int64_t token = int64_t{blockIdx.x} * kWarps + Warp(); token < sequences.tokens;
       token += int64_t{gridDim.x} * kWarps) {
    const TokenPlace place = FindPlace(sequences, token, cache.blocks, cache.block_size);
    if (place.block < 0) continue;
    const uint8_t* from = cache.Key(place.block, place.offset);
    for (int64_t i = Lane() * kCount; i < cache.width; i += kWarp * kCount) {
      StorePack(keys + token * key_stride + i, LoadPack<kCount>(from + i));
    }
    const float* of_key = cache.Scales(place.block, place.offset);
    for (int64_t i = Lane(); i < cache.groups(); i += kWarp)
      scales[token * scale_stride + i] = of_key[i];
  }
}

}  // namespace

void WriteIndexerKeys(const TokenVectors& keys, const IndexerCache& cache, const Slots& slots,
                      bool powers_of_two) {
  if (slots.end == 0) return;
  // Four elements are 8 or 16 bytes, and a group of 128 elements is one step of a warp.
  constexpr int kCount = 4;
  const dim3 blocks(ChooseBlocks(slots.tokens, kWarps),
                    static_cast<unsigned>(std::min<int64_t>(cache.groups(), 65535)));
  WithType(keys.dtype, [&](auto element) {
    using T = decltype(element);
    const bool packed = cache.group % kCount == 0 && keys.token_stride % kCount == 0 &&
                        IsAligned(keys.data, kCount * sizeof(T));
    if (packed) {
      Launch("indexer_k_quant_and_cache", &WriteKeys<kCount, T>, blocks, kThreads, 0, keys, cache,
             slots, powers_of_two);
    } else {
      Launch("indexer_k_quant_and_cache", &WriteKeys<1, T>, blocks, kThreads, 0, keys, cache, slots,
             powers_of_two);
    }
  });
}

void GatherIndexerKeys(const IndexerCache& cache, const Sequences& sequences, uint8_t* keys,
                       int64_t key_stride, float* scales, int64_t scale_stride) {
  constexpr int kCount = 4;
  const bool packed =
      cache.width % kCount == 0 && key_stride % kCount == 0 && IsAligned(keys, kCount);
  const unsigned blocks = ChooseBlocks(sequences.tokens, kWarps);
  if (packed) {
    Launch("cp_gather_indexer_k_quant_cache", &GatherKeys<kCount>, blocks, kThreads, 0, cache,
           sequences, keys, key_stride, scales, scale_stride);
  } else {
    Launch("cp_gather_indexer_k_quant_cache", &GatherKeys<1>, blocks, kThreads, 0, cache, sequences,
           keys, key_stride, scales, scale_stride);
  }
}

}  // namespace vllm
