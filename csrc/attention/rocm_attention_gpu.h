// SPDX-License-Identifier: Apache-2.0
// What a block of threads attends to, where it is, and the numbers of codes.
#pragma once

#include <cstdint>

#include "attention/rocm_attention.h"
#include "core/gpu/types.h"

namespace vllm::gpu::rocm_attention {

inline constexpr int kThreads = kRocmPartition;
inline constexpr int kMergeThreads = 128;
inline constexpr int kTiles = kRocmPartition / kRocmTile;
// From head to head. Four more than the keys: otherwise, the heads of a key would be in one bank.
inline constexpr int kScoreStride = kRocmPartition + 4;

// Returns the groups of `each` query heads that share a head of the cache.
VLLM_HOST_DEVICE inline int64_t CountGroups(const RocmAttention& attention, int each) {
  return (attention.heads / attention.kv_heads + each - 1) / each;
}

// Returns the query's token of a sequence, or -1 if the sequence is skipped.
__device__ __forceinline__ int64_t FindToken(const RocmAttention& attention, int64_t sequence) {
  int64_t token = sequence;
  if (attention.starts != nullptr) {
    token = attention.starts[sequence];
    if (attention.starts[sequence + 1] != token + 1) return -1;
  }
  return token < attention.tokens ? token : -1;
}

// Returns the number of keys of a sequence that have room in its row of the table.
__device__ __forceinline__ int64_t FindLength(const RocmAttention& attention, int64_t sequence) {
  const int64_t length = attention.lengths[sequence];
  const int64_t most = Lesser(attention.max_length, attention.columns * attention.block_size);
  return Greater<int64_t>(Lesser(length, most), 0);
}

// The keys and heads of a block of threads.
struct Partition {
  int64_t sequence, token, kv_head;
  int64_t head;    // the first of the query
  int64_t length;  // keys of the sequence
  int64_t begin;   // the position of the first key
  int index;
  int heads;
  int keys;  // of this partition

  // Returns whether there is something to do.
  __device__ __forceinline__ bool Find(const RocmAttention& attention, int each) {
    sequence = blockIdx.x;
    index = static_cast<int>(blockIdx.z);
    const int64_t ratio = attention.heads / attention.kv_heads;
    const int64_t groups = CountGroups(attention, each);
    kv_head = blockIdx.y / groups;
    const int64_t first = blockIdx.y % groups * each;
    head = kv_head * ratio + first;
    heads = static_cast<int>(Lesser<int64_t>(ratio - first, each));
    token = FindToken(attention, sequence);
    length = FindLength(attention, sequence);
    begin = int64_t{index} * kRocmPartition;
    keys = static_cast<int>(Lesser<int64_t>(Greater<int64_t>(length - begin, 0), kRocmPartition));
    // Without any key, the first partition stores zeros.
    return token >= 0 && (keys > 0 || index == 0);
  }

  // Sets the block of each tile of kRocmTile keys: -1 where there is none.
  __device__ __forceinline__ void FindTiles(const RocmAttention& attention, int32_t* tiles) const {
    const int tile = static_cast<int>(threadIdx.x);
    if (tile >= kTiles) return;
    int32_t block = -1;
    if (tile * kRocmTile < keys) {
      block = attention.table[sequence * attention.table_stride +
                              (begin + tile * kRocmTile) / attention.block_size];
      if (block >= attention.blocks) block = -1;
    }
    tiles[tile] = block;
  }

  // Returns the offset of a tile in its block.
  __device__ __forceinline__ int GetOffset(const RocmAttention& attention, int tile) const {
    return static_cast<int>(begin + tile * kRocmTile) % attention.block_size;
  }

  template <typename Code>
  __device__ __forceinline__ const Code* GetKeys(const RocmAttention& attention,
                                                 int32_t block) const {
    return static_cast<const Code*>(attention.keys) + block * attention.key_block_stride +
           kv_head * attention.key_head_stride;
  }

  // Returns element d of the values of a tile.
  template <typename Code>
  __device__ __forceinline__ const Code* GetValues(const RocmAttention& attention, int32_t block,
                                                   int tile, int d) const {
    return static_cast<const Code*>(attention.values) + block * attention.value_block_stride +
           kv_head * attention.value_head_stride + int64_t{d} * attention.value_row_stride +
           GetOffset(attention, tile) / kPerLoad<Code> * attention.value_group_stride;
  }
};

__device__ __forceinline__ bool IsFnuz(CodeFormat format) {
  return format == CodeFormat::kFnuz || (kFnuz && format == CodeFormat::kOfDevice);
}

// Converts codes to numbers, and nothing else.
template <typename T>
struct Decoder {
  __device__ __forceinline__ explicit Decoder(const RocmAttention& /*attention*/) {}
  __device__ __forceinline__ float operator()(T x) const { return ToFloat(x); }
};

template <>
struct Decoder<E4M3> {
  __device__ __forceinline__ explicit Decoder(const RocmAttention& attention) {
    const bool fnuz = IsFnuz(attention.cache_format);
    nan_bits_ = fnuz ? 0xffu : 0x7fu;
    nan_ = fnuz ? 0x80u : 0x7fu;
    factor_ = BitsToFloat(static_cast<uint32_t>(127 + 127 - (fnuz ? 8 : 7)) << 23);
  }
  // As DecodeFp8, for both formats.
  __device__ __forceinline__ float operator()(E4M3 x) const {
    const uint32_t code = x.code;
    const float magnitude = BitsToFloat((code & 0x7fu) << 20) * factor_;
    const uint32_t bits = FloatToBits(magnitude) | (code & 0x80u) << 24;
    return BitsToFloat((code & nan_bits_) == nan_ ? 0x7fc00000u : bits);
  }

 private:
  uint32_t nan_bits_, nan_;
  float factor_;
};

// Returns the code of a number that is rounded to nearest, ties to even, and saturated.
__device__ __forceinline__ uint8_t Encode(CodeFormat format, float x) {
  return IsFnuz(format) ? EncodeFp8<E4M3Fnuz>(x) : EncodeFp8<E4M3Fn>(x);
}

template <typename T>
__device__ __forceinline__ void StoreOut(const RocmAttention& attention, int64_t token,
                                         int64_t head, int d, float value) {
  const int64_t at = token * attention.out_token_stride + head * attention.out_head_stride + d;
  if (attention.out_format == CodeFormat::kNone) {
    static_cast<T*>(attention.out)[at] = FromFloat<T>(value);
  } else {
    static_cast<uint8_t*>(attention.out)[at] =
        Encode(attention.out_format, value / *attention.out_scale);
  }
}

// The factor of products of codes, and a head's addend for a position.
struct Scores {
  float scale;
  int64_t last;

  __device__ __forceinline__ Scores(const RocmAttention& attention, const Partition& here)
      : scale(attention.scale), last(here.length - 1) {
    if (attention.key_scale != nullptr) scale *= *attention.key_scale;
  }
  __device__ __forceinline__ static float GetSlope(const RocmAttention& attention, int64_t head) {
    return attention.slopes == nullptr ? 0.0f : attention.slopes[head];
  }
  __device__ __forceinline__ float Get(float product, float slope, int64_t position) const {
    return fmaf(slope, static_cast<float>(position - last), product * scale);
  }
};

}  // namespace vllm::gpu::rocm_attention
