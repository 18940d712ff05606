// SPDX-License-Identifier: Apache-2.0
#include "sampling/sampling.h"

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/extremes.h"
#include "core/gpu/launch.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"
#include "sampling/philox.h"

namespace vllm {
namespace {

using namespace gpu;

// One block processes a row, and a batch has few rows, so a block has as many threads as possible.
constexpr int kMaxThreads = 1024;
// The number of elements for which one call of RunPhilox suffices; a thread processes as many at
// once.
constexpr int kGroup = 8;

// The best element so far. NaN has a combination of score and noise that no number has.
struct Best {
  double score = -INFINITY;
  double noise = -INFINITY;  // decides between equal scores; then the first element does
  int64_t index = 0;

  __device__ __forceinline__ void Take(double other_score, double other_noise,
                                       int64_t other_index) {
    const bool better = other_score != score   ? other_score > score
                        : other_noise != noise ? other_noise > noise
                                               : other_index < index;
    if (!better) return;
    score = other_score;
    noise = other_noise;
    index = other_index;
  }
};

__device__ __forceinline__ void ReduceInWarp(Best& best) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const double score = ShuffleXor(best.score, mask), noise = ShuffleXor(best.noise, mask);
    best.Take(score, noise, ShuffleXor(best.index, mask));
  }
}

// Sets `best` of thread 0 to the block's best.
__device__ __forceinline__ void ReduceInBlock(Best& best) {
  __shared__ double scores[kWarp], noises[kWarp];
  __shared__ int64_t indices[kWarp];
  ReduceInWarp(best);
  if (Lane() == 0) {
    scores[Warp()] = best.score;
    noises[Warp()] = best.noise;
    indices[Warp()] = best.index;
  }
  __syncthreads();
  if (Warp() != 0) return;
  static_assert(kMaxThreads <= kWarp * kWarp);
  if (Lane() < static_cast<int>(blockDim.x) / kWarp)
    best.Take(scores[Lane()], noises[Lane()], indices[Lane()]);
  ReduceInWarp(best);
}

// Loads elements [i, i + kGroup) of a row of n elements, with -infinity after its end.
template <bool kPacked, typename T>
__device__ __forceinline__ void LoadGroup(const T* row, int64_t i, int64_t n, float (&x)[kGroup]) {
  constexpr int kLoad = kPerLoad<T> < kGroup ? kPerLoad<T> : kGroup;
  if (kPacked && i + kGroup <= n) {
#pragma unroll
    for (int k = 0; k < kGroup; k += kLoad) {
      const Pack<T, kLoad> pack = LoadPack<kLoad>(row + i + k);
#pragma unroll
      for (int j = 0; j < kLoad; ++j) x[k + j] = ToFloat(pack.items[j]);
    }
  } else {
#pragma unroll
    for (int k = 0; k < kGroup; ++k) x[k] = i + k < n ? ToFloat(row[i + k]) : -INFINITY;
  }
}

template <bool kPacked, typename T>
__global__ void __launch_bounds__(kMaxThreads) ChooseGreedily(Rows logits, int64_t* tokens) {
  const T* row = logits.Row<const T>(blockIdx.x);
  float most = -INFINITY;
  int64_t index = 0;
  bool nan = false;
  // A thread's elements come in ascending order, so it keeps the first of equal ones.
  for (int64_t i = int64_t{threadIdx.x} * kGroup; i < logits.width && !nan;
       i += int64_t{blockDim.x} * kGroup) {
    float x[kGroup];
    LoadGroup<kPacked>(row, i, logits.width, x);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (nan || !(x[k] > most || std::isnan(x[k]))) continue;
      most = x[k];
      index = i + k;
      nan = std::isnan(x[k]);
    }
  }
  Best best;
  best.Take(nan ? INFINITY : most, nan ? INFINITY : -INFINITY, index);
  ReduceInBlock(best);
  if (threadIdx.x == 0) tokens[blockIdx.x] = best.index;
}

// Returns -log(-log(1 - c)) for c = (high * 2^32 + low + 1/2) / 2^48.
__device__ double ComputeGumbelNoise(uint32_t high, uint32_t low) {
  const double c = (static_cast<double>((uint64_t{high} << 32) + low) + 0.5) * 0x1p-48;
  return -log(-log1p(-c));
}

// Returns at least 1e-5 more than the noise of any element whose 16-bit number is `high`.
__device__ __forceinline__ float BoundNoise(uint32_t high) {
  // -log(-log(1 - c)) <= -log(c), because -log(1 - c) >= c; and c >= high / 2^16, or half of 2^-48.
  if (high == 0) return 34.0f;
  // The bits of a number, read as an integer, are its logarithm with a linearly interpolated
  // mantissa, which never exceeds the logarithm.
  const int32_t bits = static_cast<int32_t>(FloatToBits(static_cast<float>(high))) - (127 << 23);
  constexpr float kLog2 = 0.69314718f;
  return 16 * kLog2 + 1e-4f - kLog2 * (static_cast<float>(bits) * 0x1p-23f);
}

// Convert floats to unsigned numbers in the same order, and back. There is no NaN among them.
__device__ __forceinline__ uint32_t ToOrdered(float x) {
  const uint32_t bits = FloatToBits(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float FromOrdered(uint32_t ordered) {
  return BitsToFloat(ordered & 0x80000000u ? ordered ^ 0x80000000u : ~ordered);
}

// The noise takes two logarithms in float64, but hardly any element can win. The others are
// excluded by an upper bound of their noise.
//
// `bar` is the score of some element of the row, rounded to float32. If bound + logit, rounded, is
// below it, the element's score in float64 is lower too: rounding keeps the order; the bound
// exceeds the noise by more than float64's rounding where that matters; elsewhere, float32 numbers
// are further apart than any noise. Elements that reach the bar, or equal it, are examined, so the
// result does not depend on when threads see the bar rise.
template <bool kPacked, typename T>
__global__ void __launch_bounds__(kMaxThreads)
    ChooseWithNoise(Rows logits, const int64_t* seeds, int64_t seed_stride, int64_t* tokens) {
  __shared__ uint32_t bar;
  if (threadIdx.x == 0) bar = ToOrdered(-INFINITY);
  __syncthreads();
  const T* row = logits.Row<const T>(blockIdx.x);
  const uint64_t seed = static_cast<uint64_t>(seeds[blockIdx.x * seed_stride]);
  Best best;
  for (int64_t i = int64_t{threadIdx.x} * kGroup; i < logits.width;
       i += int64_t{blockDim.x} * kGroup) {
    float x[kGroup];
    LoadGroup<kPacked>(row, i, logits.width, x);
    const PhiloxWords words = RunPhilox(seed, static_cast<uint64_t>(i) / kGroup, 0);
    float most = -INFINITY;
    uint32_t smallest = 0xFFFF;
    bool nan = false;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const uint32_t high = words.words[k / 2] >> (k % 2 * 16) & 0xFFFF;
      smallest = high < smallest ? high : smallest;
      most = LargerNumber(x[k], most);
      nan = nan || std::isnan(x[k]);
    }
    const float reached = FromOrdered(*static_cast<volatile uint32_t*>(&bar));
    if (!nan && (most == -INFINITY || most + BoundNoise(smallest) < reached)) continue;
    uint32_t candidates = 0;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const uint32_t high = words.words[k / 2] >> (k % 2 * 16) & 0xFFFF;
      if (std::isnan(x[k])) {
        best.Take(INFINITY, INFINITY, i + k);
      } else if (x[k] != -INFINITY && !(x[k] + BoundNoise(high) < reached)) {
        candidates |= 1u << k;
      }
    }
#pragma unroll 1
    for (int k = 0; k < kGroup; ++k) {
      if ((candidates >> k & 1u) == 0) continue;
      // Selected by comparisons, because an index that is unknown at compile time would put the
      // words into memory.
      const uint32_t word = k < 4 ? (k < 2 ? words.words[0] : words.words[1])
                                  : (k < 6 ? words.words[2] : words.words[3]);
      const PhiloxWords lows = RunPhilox(seed, static_cast<uint64_t>(i + k) / 4, 1);
      const int at = k % 4;
      const uint32_t low = at < 2 ? (at == 0 ? lows.words[0] : lows.words[1])
                                  : (at == 2 ? lows.words[2] : lows.words[3]);
      const double noise = ComputeGumbelNoise(word >> (k % 2 * 16) & 0xFFFF, low);
      const double score = static_cast<double>(ToFloat(row[i + k])) + noise;
      best.Take(score, noise, i + k);
      atomicMax(&bar, ToOrdered(static_cast<float>(score)));
    }
  }
  ReduceInBlock(best);
  if (threadIdx.x == 0) tokens[blockIdx.x] = best.index;
}

template <class F>
void WithPacking(const Rows& logits, F&& launch) {
  WithType(logits.dtype, [&](auto element) {
    const int threads = ChooseThreads((logits.width + kGroup - 1) / kGroup, kMaxThreads);
    if (AreRowsAligned(logits, sizeof(element), 16)) {
      launch(element, std::true_type(), threads);
    } else {
      launch(element, std::false_type(), threads);
    }
  });
}

}  // namespace

void ChooseTokensGreedily(const Rows& logits, int64_t* tokens) {
  WithPacking(logits, [&](auto element, auto packed, int threads) {
    Launch("greedy_argmax", &ChooseGreedily<packed.value, decltype(element)>,
           ChooseBlocks(logits.count, 1), threads, 0, logits, tokens);
  });
}

void SampleTokens(const Rows& logits, const int64_t* seeds, int64_t seed_stride, int64_t* tokens) {
  WithPacking(logits, [&](auto element, auto packed, int threads) {
    Launch("fused_gumbel_argmax", &ChooseWithNoise<packed.value, decltype(element)>,
           ChooseBlocks(logits.count, 1), threads, 0, logits, seeds, seed_stride, tokens);
  });
}

}  // namespace vllm
