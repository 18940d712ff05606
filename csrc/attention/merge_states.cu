// SPDX-License-Identifier: Apache-2.0
#include "attention/merge_states.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/extremes.h"
#include "core/gpu/groups.h"
#include "core/gpu/launch.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kThreads = 128;
// The lanes of a group are in one warp, so each has read its input before any of them writes.
constexpr int kMaxLaneBits = 5;

// The share of each side in the result.
struct Shares {
  float prefix;
  float suffix;
  float lse;
};

__device__ __forceinline__ Shares ComputeShares(float prefix, float suffix) {
  constexpr float kNone = -INFINITY;
  if (std::isinf(prefix)) prefix = kNone;
  if (std::isinf(suffix)) suffix = kNone;
  if (prefix == kNone && suffix == kNone) return {0.0f, 0.0f, kNone};
  // If either number is NaN, its exponential is NaN, and so are all three results, regardless of
  // the maximum.
  const float larger = LargerNumber(prefix, suffix);
  const float a = expf(prefix - larger), b = expf(suffix - larger);
  return {a / (a + b), b / (a + b), larger + logf(a + b)};
}

// One block for each token (x) and for as many heads as it has groups of lanes (y). The lanes of a
// group iterate over a head; a step processes kCount elements.
template <int kCount, typename T>
__global__ void __launch_bounds__(kThreads) MergeTokens(MergeStates merge, Groups groups) {
  const auto row = [](const AttentionHeads& heads, int64_t token, int64_t head) {
    return GetRow<T>(heads.tokens, token) + head * heads.head_stride;
  };
  const int64_t steps = merge.output.tokens.width / kCount;
  for (int64_t token = blockIdx.x; token < merge.output.tokens.count; token += gridDim.x) {
    for (int64_t first = int64_t{blockIdx.y} * groups.count(); first < merge.output.heads;
         first += int64_t{gridDim.y} * groups.count()) {
      const int64_t head = first + groups.group();
      const bool mine = head < merge.output.heads;
      Shares shares{0.0f, 1.0f, 0.0f};
      if (mine) {
        shares.lse = merge.suffix_lse[head * merge.suffix_lse_stride + token];
        if (token < merge.merged_tokens)
          shares =
              ComputeShares(merge.prefix_lse[head * merge.prefix_lse_stride + token], shares.lse);
      }
      SyncWarp();  // output_lse may be one of the two inputs
      if (!mine) continue;
      if (groups.lane() == 0 && merge.output_lse != nullptr)
        merge.output_lse[head * merge.output_lse_stride + token] = shares.lse;
      // A side with a share of zero is not read, because its memory may hold NaN.
      const bool with_prefix = shares.prefix != 0.0f, with_suffix = shares.suffix != 0.0f;
      const T* prefix = row(merge.prefix, token, head);
      const T* suffix = row(merge.suffix, token, head);
      T* output = row(merge.output, token, head);
      for (int64_t step = groups.lane(); step < steps; step += groups.lanes()) {
        Pack<T, kCount> a = {}, b = {}, sum;
        if (with_prefix) a = LoadPack<kCount>(prefix + step * kCount);
        if (with_suffix) b = LoadPack<kCount>(suffix + step * kCount);
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          sum.items[k] = FromFloat<T>(
              fmaf(ToFloat(a.items[k]), shares.prefix, ToFloat(b.items[k]) * shares.suffix));
        }
        StorePack(output + step * kCount, sum);
      }
    }
  }
}

template <int kCount, typename T>
bool CanUsePacks(const AttentionHeads& heads) {
  return heads.tokens.width % kCount == 0 && AreRowsAligned(heads.tokens, sizeof(T), 16) &&
         (heads.heads <= 1 || heads.head_stride % kCount == 0);
}

template <int kCount, typename T>
void MergeSteps(const MergeStates& merge) {
  const int64_t heads = merge.output.heads;
  const Groups groups =
      ChooseGroups(merge.output.tokens.width / kCount, heads, kMaxLaneBits, kThreads);
  constexpr int64_t kMostPieces = 65535;
  const int64_t each = groups.threads >> groups.lane_bits;
  const dim3 blocks(ChooseBlocks(merge.output.tokens.count, 1),
                    static_cast<unsigned>(std::min((heads + each - 1) / each, kMostPieces)));
  Launch("merge_attn_states", &MergeTokens<kCount, T>, blocks, groups.threads, 0, merge, groups);
}

}  // namespace

void RunMergeStates(const MergeStates& merge) {
  WithType(merge.output.tokens.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kCount = kPerLoad<T>;
    const bool packed = CanUsePacks<kCount, T>(merge.output) &&
                        CanUsePacks<kCount, T>(merge.prefix) &&
                        CanUsePacks<kCount, T>(merge.suffix);
    if (packed) {
      MergeSteps<kCount, T>(merge);
    } else {
      MergeSteps<1, T>(merge);
    }
  });
}

}  // namespace vllm
