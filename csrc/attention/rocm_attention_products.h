// SPDX-License-Identifier: Apache-2.0
// How a block multiplies queries by keys and weights by values: with dot products, or with matrix
// instructions for as many heads as these have lines.
#pragma once

#include <cstdint>
#include <type_traits>

#include "attention/rocm_attention_gpu.h"
#include "core/gpu/matrix.h"
#include "core/gpu/reduce.h"

namespace vllm::gpu::rocm_attention {

// Dot products in float32. A thread has one key; and then one element of the head, for some of the
// keys.
template <typename T, typename Code, int kSize, int kHeads>
struct DotProducts {
  using Query = float;
  using Weight = float;
  static constexpr int kQueryStride = kSize;
  static constexpr float kWeightUnit = 1.0f;
  static constexpr int kEach = kPerLoad<Code>;
  // Threads that share an element of the head and a tile.
  static constexpr int kSharing = kRocmTile / kEach;
  static constexpr int kParts = kThreads / kSharing / kSize;
  static_assert(kParts >= 1 && kParts * kSize <= kScoreStride);
  // Loads of a thread that are on their way at the same time: 64 bytes, or 32 of codes.
  static constexpr int kUnrolled = 32 / kEach;

  __device__ __forceinline__ static float ToQuery(T x) { return ToFloat(x); }

  // Multiplies kEach numbers by those of each head, which are `stride` apart.
  __device__ __forceinline__ static void MultiplyAdd(const float (&numbers)[kEach],
                                                     const float* others, int stride,
                                                     float (&sums)[kHeads]) {
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
#pragma unroll
      for (int i = 0; i < kEach; i += 4) {
        const Pack<float, 4> four = LoadPack<4>(others + head * stride + i);
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[head] = fmaf(numbers[i + k], four.items[k], sums[head]);
      }
    }
  }

  __device__ __forceinline__ static void ComputeScores(const RocmAttention& attention,
                                                       const Partition& here, const int32_t* tiles,
                                                       const float* queries, float* scores) {
    const int key = static_cast<int>(threadIdx.x), tile = key / kRocmTile;
    const int32_t block = tiles[tile];
    const bool exists = key < here.keys && block >= 0;
    float products[kHeads] = {};
    if (exists) {
      const Decoder<Code> decode(attention);
      const Code* from = here.GetKeys<Code>(attention, block) +
                         (here.GetOffset(attention, tile) + key % kRocmTile) * kEach;
#pragma unroll kUnrolled
      for (int d = 0; d < kSize; d += kEach) {
        const Pack<Code, kEach> pack = LoadPack<kEach>(from + d * attention.block_size);
        float numbers[kEach];
#pragma unroll
        for (int i = 0; i < kEach; ++i) numbers[i] = decode(pack.items[i]);
        MultiplyAdd(numbers, queries + d, kQueryStride, products);
      }
    }
    const Scores compute(attention, here);
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
      if (head < here.heads) {
        scores[head * kScoreStride + key] =
            exists ? compute.Get(products[head], compute.GetSlope(attention, here.head + head),
                                 here.begin + key)
                   : -INFINITY;
      }
    }
  }

  __device__ __forceinline__ static void SumValues(const RocmAttention& attention,
                                                   const Partition& here, const int32_t* tiles,
                                                   float* scores) {
    const int thread = static_cast<int>(threadIdx.x);
    const int d = thread / kSharing % kSize, part = thread / kSharing / kSize;
    const int within = thread % kSharing * kEach;
    const Decoder<Code> decode(attention);
    float sums[kHeads] = {};
#pragma unroll 2
    for (int step = 0; step < kTiles / kParts; ++step) {
      const int tile = step * kParts + part;
      const int32_t block = tiles[tile];
      const int key = tile * kRocmTile + within, left = here.keys - key;
      if (block < 0 || left <= 0) continue;
      const Pack<Code, kEach> pack =
          LoadPack<kEach>(here.GetValues<Code>(attention, block, tile, d) +
                          within / kEach * attention.value_group_stride);
      float numbers[kEach];
      // Behind the last key, memory may hold anything.
#pragma unroll
      for (int i = 0; i < kEach; ++i) numbers[i] = i < left ? decode(pack.items[i]) : 0.0f;
      MultiplyAdd(numbers, scores + key, kScoreStride, sums);
    }
    __syncthreads();  // the sums are stored over the weights
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
      const float sum = WarpReduce<kSharing>(sums[head], Sum());
      if (within == 0) scores[(part * kHeads + head) * kSize + d] = sum;
    }
  }
};

// Matrix instructions for 16 heads. Of a head's elements and of the keys, a lane has 16 adjacent
// ones.
template <typename T, typename Code, int kSize>
struct MatrixProducts {
  using Query = T;
  using Weight = T;
  using Operand = matrix::Operand<T>;
  static constexpr int kHeads = matrix::kLines;
  static constexpr int kQueryStride = kSize + 8;
  // Some of these instructions take subnormal numbers for zero. A factor keeps the weights of
  // float16 away from them; sums of float16 values have room for it.
  static constexpr float kWeightUnit = std::is_same_v<T, Fp16> ? 1024.0f : 1.0f;
  static constexpr int kWeightStride = kScoreStride * 4 / static_cast<int>(sizeof(T));
  static constexpr int kWaves = kThreads / matrix::kWave;
  static constexpr int kSteps = kSize / matrix::kElements / matrix::kGroups;
  // Waves divide the elements of the head among them, and then the keys.
  static constexpr int kRows = kSize / matrix::kLines;
  static constexpr int kRowWaves = kRows < kWaves ? kRows : kWaves;
  static constexpr int kRowsEach = kRows / kRowWaves;
  static constexpr int kParts = kWaves / kRowWaves;
  static_assert(kSteps >= 1 && kParts * kSize <= kScoreStride);

  __device__ __forceinline__ static T ToQuery(T x) { return x; }

  // Float8 numbers are numbers of T.
  __device__ __forceinline__ static T ToElement(float x) {
    if constexpr (std::is_same_v<T, Bf16>) {
      return {static_cast<uint16_t>(FloatToBits(x) >> 16)};
    } else {
      return FromFloat<T>(x);
    }
  }

  // Loads 16 elements: those of each 16 bytes are adjacent, and `stride` elements are from one to
  // the next.
  __device__ __forceinline__ static Operand Load(const Decoder<Code>& decode, const Code* from,
                                                 int stride) {
    constexpr int kEach = kPerLoad<Code>;
    Operand operand;
#pragma unroll
    for (int i = 0; i < matrix::kElements; i += kEach) {
      const Pack<Code, kEach> pack = LoadPack<kEach>(from + i / kEach * stride);
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        if constexpr (std::is_same_v<T, Code>) {
          operand.items[i + k] = pack.items[k];
        } else {
          operand.items[i + k] = ToElement(decode(pack.items[k]));
        }
      }
    }
    return operand;
  }

  __device__ __forceinline__ static Operand LoadShared(const T* from) {
    Operand operand;
#pragma unroll
    for (int i = 0; i < matrix::kElements; i += 8) {
      const Pack<T, 8> pack = LoadPack<8>(from + i);
#pragma unroll
      for (int k = 0; k < 8; ++k) operand.items[i + k] = pack.items[k];
    }
    return operand;
  }

  __device__ __forceinline__ static void ComputeScores(const RocmAttention& attention,
                                                       const Partition& here, const int32_t* tiles,
                                                       const T* queries, float* scores) {
    const int line = matrix::Line();
    const Decoder<Code> decode(attention);
    const Scores compute(attention, here);
    const float slope = line < here.heads ? compute.GetSlope(attention, here.head + line) : 0.0f;
    Operand query[kSteps];
    const auto get_first = [](int step) {
      return (step * matrix::kGroups + matrix::Group()) * matrix::kElements;
    };
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
      query[step] = LoadShared(queries + line * kQueryStride + get_first(step));
#pragma unroll 2
    for (int each = 0; each < kTiles / kWaves; ++each) {
      const int tile = each * kWaves + matrix::Wave();
      const int32_t block = tiles[tile];
      const int first = tile * kRocmTile;
      const bool exists = block >= 0 && first + line < here.keys;
      const Code* from = here.GetKeys<Code>(attention, exists ? block : 0) +
                         (here.GetOffset(attention, tile) + line) * kPerLoad<Code>;
      matrix::Product product = {};
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        Operand key = {};
        if (exists)
          key = Load(decode, from + get_first(step) * attention.block_size,
                     attention.block_size * kPerLoad<Code>);
        matrix::MultiplyAdd(key, query[step], product);
      }
#pragma unroll
      for (int i = 0; i < matrix::kResults; ++i) {
        const int key = first + matrix::GetLine(i);
        scores[line * kScoreStride + key] =
            block >= 0 && key < here.keys ? compute.Get(product.items[i], slope, here.begin + key)
                                          : -INFINITY;
      }
    }
  }

  __device__ __forceinline__ static void SumValues(const RocmAttention& attention,
                                                   const Partition& here, const int32_t* tiles,
                                                   float* scores) {
    const int line = matrix::Line();
    const int row = matrix::Wave() % kRowWaves, part = matrix::Wave() / kRowWaves;
    const T* weights = reinterpret_cast<const T*>(scores) + line * kWeightStride;
    const Decoder<Code> decode(attention);
    matrix::Product sums[kRowsEach] = {};
#pragma unroll 2
    for (int step = 0; step < kTiles / matrix::kGroups / kParts; ++step) {
      const int tile = (step * kParts + part) * matrix::kGroups + matrix::Group();
      const int32_t block = tiles[tile];
      const int left = here.keys - tile * kRocmTile;
      const Operand weight = LoadShared(weights + tile * kRocmTile);
#pragma unroll
      for (int each = 0; each < kRowsEach; ++each) {
        const int d = (each * kRowWaves + row) * matrix::kLines + line;
        Operand value = {};
        if (block >= 0) {
          value = Load(decode, here.GetValues<Code>(attention, block, tile, d),
                       attention.value_group_stride);
          // Behind the last key, memory may hold anything.
          if (left < kRocmTile) {
#pragma unroll
            for (int i = 0; i < kRocmTile; ++i) {
              if (i >= left) value.items[i] = T{};
            }
          }
        }
        matrix::MultiplyAdd(value, weight, sums[each]);
      }
    }
    __syncthreads();  // the sums are stored over the weights
#pragma unroll
    for (int each = 0; each < kRowsEach; ++each) {
#pragma unroll
      for (int i = 0; i < matrix::kResults; ++i) {
        const int d = (each * kRowWaves + row) * matrix::kLines + matrix::GetLine(i);
        scores[(part * kHeads + line) * kSize + d] = sums[each].items[i];
      }
    }
  }
};

template <typename T, typename Code, int kSize, int kHeads>
using ChooseEngine =
    std::conditional_t<matrix::kAvailable && kHeads == matrix::kLines,
                       MatrixProducts<T, Code, kSize>, DotProducts<T, Code, kSize, kHeads>>;

}  // namespace vllm::gpu::rocm_attention
