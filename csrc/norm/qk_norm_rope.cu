// SPDX-License-Identifier: Apache-2.0
#include "norm/qk_norm_rope.h"

#include <algorithm>
#include <cstdint>

#include "norm/norm_gpu.h"
#include "rotary/rotary_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kMostThreads = 256;

// A block processes a token; kLanes adjacent lanes process one of its heads, then another. With
// kHeld, each lane has at most one piece of the rotated elements, and its angles are kept from head
// to head. Otherwise lanes iterate over the pieces and load them for both passes.
template <typename T, bool kNeox, int kLanes, bool kHeld, bool kAligned>
__global__ void __launch_bounds__(kMostThreads, 4)
    NormRopeTokens(Rows qkv, Rows positions, QkNormRope how) {
  using Pairs = PairsOf<T, kNeox, kAligned>;
  constexpr int kRest = Pairs::kLoad;
  // Loops over pieces are not unrolled: there is usually one or none, and saving registers permits
  // more blocks.
  const int64_t rotary = how.cache.rotary_dim, half = rotary / 2, pieces = half / Pairs::kCount;
  const int64_t heads = how.query_heads + how.key_heads;
  const int lane = static_cast<int>(threadIdx.x) % kLanes,
            teams = static_cast<int>(blockDim.x) / kLanes;
  for (int64_t token = blockIdx.x; token < qkv.count; token += gridDim.x) {
    int64_t position;
    if (!FindPosition(positions, token, how.cache, position)) continue;
    T* row = GetRow<T>(qkv, token);
    Angles<Pairs::kCount> angles = {};
    if (kHeld && lane < pieces) angles.Load(how.cache, position, lane * Pairs::kCount);
    // All teams iterate until the last head is done, because lanes of one warp may have several
    // heads.
    for (int64_t begin = 0; begin < heads; begin += teams) {
      const int64_t index = begin + threadIdx.x / kLanes;
      const bool has_head = index < heads;
      T* head = row + (has_head ? index : 0) * how.head_size;
      const T* weight =
          static_cast<const T*>(index < how.query_heads ? how.query_weight : how.key_weight);
      Pairs pairs;
      float x[Pairs::kCount] = {}, y[Pairs::kCount] = {};
      float squares = 0.0f;
#pragma unroll 1
      for (int64_t piece = lane; piece < pieces; piece += kLanes) {
        pairs.Load(head, piece * Pairs::kCount, half);
        pairs.Get(x, y);
#pragma unroll
        for (int j = 0; j < Pairs::kCount; ++j)
          squares = fmaf(y[j], y[j], fmaf(x[j], x[j], squares));
        if (kHeld) break;
      }
#pragma unroll 1
      for (int64_t i = rotary + lane * kRest; i < how.head_size; i += kLanes * kRest) {
        const Pack<T, kRest> items = LoadPack<kRest>(head + i);
#pragma unroll
        for (int j = 0; j < kRest; ++j)
          squares = fmaf(ToFloat(items.items[j]), ToFloat(items.items[j]), squares);
      }
      const float factor =
          ComputeNormFactor(WarpReduce<kLanes>(squares, Sum()), how.head_size, how.epsilon);
      if (!has_head) continue;
#pragma unroll 1
      for (int64_t piece = lane; piece < pieces; piece += kLanes) {
        const int64_t i = piece * Pairs::kCount;
        if (!kHeld) {
          angles.Load(how.cache, position, i);
          pairs.Load(head, i, half);
          pairs.Get(x, y);
        }
        Pairs weights;
        weights.Load(weight, i, half);
        float weight_x[Pairs::kCount], weight_y[Pairs::kCount];
        weights.Get(weight_x, weight_y);
#pragma unroll
        for (int j = 0; j < Pairs::kCount; ++j) {
          x[j] = x[j] * factor * weight_x[j];
          y[j] = y[j] * factor * weight_y[j];
        }
        angles.Rotate(x, y);
        Pairs::Store(head, i, half, x, y);
        if (kHeld) break;
      }
#pragma unroll 1
      for (int64_t i = rotary + lane * kRest; i < how.head_size; i += kLanes * kRest) {
        const Pack<T, kRest> items = LoadPack<kRest>(head + i),
                             weights = LoadPack<kRest>(weight + i);
        float values[kRest];
#pragma unroll
        for (int j = 0; j < kRest; ++j)
          values[j] = ToFloat(items.items[j]) * factor * ToFloat(weights.items[j]);
        StorePack(head + i, FromFloats<T>(values));
      }
    }
  }
}

template <typename T, bool kNeox, int kLanes, bool kHeld, bool kAligned>
void Rotate(const Rows& qkv, const Rows& positions, const QkNormRope& how) {
  const int64_t heads = how.query_heads + how.key_heads;
  if (heads == 0) return;
  const int threads =
      ChooseThreads(ChooseEvenShare(heads, kMostThreads / kLanes) * kLanes, kMostThreads);
  Launch("fused_qk_norm_rope", &NormRopeTokens<T, kNeox, kLanes, kHeld, kAligned>,
         ChooseBlocks(qkv.count, 1), threads, 0, qkv, positions, how);
}

template <typename T, bool kNeox>
void RotateWithLanes(const Rows& qkv, const Rows& positions, const QkNormRope& how) {
  const int64_t size = sizeof(T);
  const bool aligned = HasWholePairs<T>(how.cache, kNeox) && AreRowsAligned(qkv, sizeof(T), 16) &&
                       how.head_size * size % 16 == 0 && IsAligned(how.query_weight, 16) &&
                       IsAligned(how.key_weight, 16);
  const int64_t pieces = how.cache.rotary_dim / 2 / kPairs<T, kNeox, true>;
  if (!aligned || pieces > 32) {
    Rotate<T, kNeox, 32, false, false>(qkv, positions, how);
  } else if (pieces <= 8) {
    Rotate<T, kNeox, 8, true, true>(qkv, positions, how);
  } else if (pieces <= 16) {
    Rotate<T, kNeox, 16, true, true>(qkv, positions, how);
  } else {
    Rotate<T, kNeox, 32, true, true>(qkv, positions, how);
  }
}

}  // namespace

void NormalizeAndRotateHeads(const Rows& qkv, const Rows& positions, const QkNormRope& how) {
  WithType(qkv.dtype, [&](auto element) {
    using T = decltype(element);
    how.neox ? RotateWithLanes<T, true>(qkv, positions, how)
             : RotateWithLanes<T, false>(qkv, positions, how);
  });
}

}  // namespace vllm
