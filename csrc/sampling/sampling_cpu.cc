// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>

#include "sampling/choice.h"
#include "sampling/philox.h"
#include "sampling/sampling.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "sampling/sampling_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/reduce-inl.h"
#include "core/simd-inl.h"
#include "core/with_type-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

using U64 = hn::Repartition<uint64_t, F32>;
using U32 = hn::Repartition<uint32_t, F32>;
using U16 = hn::Repartition<uint16_t, F32>;
using VU64 = hn::Vec<U64>;

// The number of vectors of logits in a block. A block is first examined as a whole; its elements
// are examined one by one only if it may contain a better one.
inline constexpr size_t kVectors = 8;

// Decides whether to examine elements: the largest logit of a block, in lanes, and a sum that is
// NaN if a logit is. If it is NaN, the elements are examined regardless of the largest logit.
struct Extremes {
  VF32 most;
  VF32 sum;
};

template <typename T>
HWY_INLINE Extremes LoadBlock(const T* HWY_RESTRICT logits) {
  const size_t lanes = hn::Lanes(F32());
  VF32 most0 = Load(logits), most1 = Load(logits + lanes);
  VF32 sum0 = most0, sum1 = most1;
  for (size_t i = 2; i < kVectors; i += 2) {
    const VF32 v0 = Load(logits + i * lanes), v1 = Load(logits + (i + 1) * lanes);
    most0 = LargerOfNumbers(most0, v0);
    most1 = LargerOfNumbers(most1, v1);
    sum0 = hn::Add(sum0, v0);
    sum1 = hn::Add(sum1, v1);
  }
  return {LargerOfNumbers(most0, most1), hn::Add(sum0, sum1)};
}

// Copies n logits as float32 to `to`, which has room for a block.
template <typename T>
HWY_NOINLINE void Widen(const T* HWY_RESTRICT logits, size_t n, float* HWY_RESTRICT to) {
  const size_t lanes = hn::Lanes(F32());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) Store(Load(logits + i), to + i);
  if (i < n) StoreTail(LoadTail(logits + i, n - i), to + i, n - i);
}

// Joins the numbers in the lower halves of the words of two vectors.
HWY_INLINE hn::Vec<U16> JoinHalves(VU64 low, VU64 high) {
  const U32 d;
  return hn::BitCast(U16(),
                     hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(high)), hn::BitCast(d, low)));
}

// Returns, lane by lane, the smaller one of the 16-bit numbers for the counters. Words are in the
// lower halves of 64-bit lanes; the upper halves are ignored.
HWY_INLINE hn::Vec<U16> DrawSmallest(VU64 counter, const uint64_t* keys) {
  const U64 d;
  const U32 d32;
  const auto m0 = hn::Set(d32, kPhiloxMultiplier0), m1 = hn::Set(d32, kPhiloxMultiplier1);
  const auto key = [&](int i) HWY_ATTR { return hn::Set(d, keys[i]); };
  // The first round, in which the stage and the fourth word are zero.
  const VU64 first = hn::MulEven(hn::BitCast(d32, counter), m0);
  VU64 x0 = hn::Xor(hn::ShiftRight<32>(counter), key(0)), x1 = hn::Zero(d);
  VU64 x2 = hn::Xor(hn::ShiftRight<32>(first), key(1)), x3 = first;
  for (int round = 1; round < kPhiloxRounds; ++round) {
    const VU64 p0 = hn::MulEven(hn::BitCast(d32, x0), m0),
               p1 = hn::MulEven(hn::BitCast(d32, x2), m1);
    x0 = hn::Xor3(hn::ShiftRight<32>(p1), x1, key(2 * round));
    x2 = hn::Xor3(hn::ShiftRight<32>(p0), x3, key(2 * round + 1));
    x1 = p1;
    x3 = p0;
  }
  return SmallerOfNumbers(JoinHalves(x0, x1), JoinHalves(x2, x3));
}

// Examines elements [begin, end) of a row.
template <typename T>
void ScanGreedy(const T* HWY_RESTRICT row, int64_t begin, int64_t end, Choice& best) {
  const F32 d;
  const int64_t block = static_cast<int64_t>(kVectors * hn::Lanes(d));
  HWY_ALIGN float buffer[kVectors * hn::MaxLanes(F32())];
  int64_t i = begin;
  for (; i + block <= end && !best.nan; i += block) {
    const Extremes extremes = LoadBlock(row + i);
    const auto better = hn::Gt(extremes.most, hn::Set(d, static_cast<float>(best.score)));
    if (hn::AllFalse(d, hn::Or(better, hn::IsNaN(extremes.sum)))) continue;
    Widen(row + i, static_cast<size_t>(block), buffer);
    ScanLogits(buffer, i, block, best);
  }
  if (i < end && !best.nan) {
    Widen(row + i, static_cast<size_t>(end - i), buffer);
    ScanLogits(buffer, i, end - i, best);
  }
}

template <typename T>
void ScanGumbel(const T* HWY_RESTRICT row, uint64_t seed, int64_t begin, int64_t end,
                Choice& best) {
  const F32 d;
  const U64 du;
  const size_t lanes = hn::Lanes(d);
  const int64_t block = static_cast<int64_t>(kVectors * lanes);
  HWY_ALIGN float buffer[kVectors * hn::MaxLanes(F32())];
  uint64_t keys[2 * kPhiloxRounds];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    keys[2 * round] = static_cast<uint32_t>(seed) + static_cast<uint32_t>(round) * kPhiloxWeyl0;
    keys[2 * round] &= 0xFFFFFFFFu;
    keys[2 * round + 1] =
        static_cast<uint32_t>(seed >> 32) + static_cast<uint32_t>(round) * kPhiloxWeyl1;
    keys[2 * round + 1] &= 0xFFFFFFFFu;
  }
  int64_t i = begin;
  for (; i + block <= end && !best.nan; i += block) {
    // A counter provides eight elements, so a block has as many counters as a vector has floats:
    // two vectors of counters.
    const VU64 low = hn::Iota(du, static_cast<uint64_t>(i / 8));
    const VU64 high = hn::Add(low, hn::Set(du, hn::Lanes(du)));
    const auto numbers = SmallerOfNumbers(DrawSmallest(low, keys), DrawSmallest(high, keys));
    const Extremes extremes = LoadBlock(row + i);
    const double most = static_cast<double>(LargestOfNumbers(d, extremes.most));
    const uint32_t smallest = SmallestOfNumbers(U16(), numbers);
    // Rounding keeps the order, so no sum in this block exceeds this one.
    if (most + BoundNoise(smallest) < best.score && hn::AllFalse(d, hn::IsNaN(extremes.sum)))
      continue;
    Widen(row + i, static_cast<size_t>(block), buffer);
    ScanNoisyLogits(buffer, i, block, seed, best);
  }
  if (i < end && !best.nan) {
    Widen(row + i, static_cast<size_t>(end - i), buffer);
    ScanNoisyLogits(buffer, i, end - i, seed, best);
  }
}

template <typename T>
void ChooseItems(const Rows& logits, const int64_t* seeds, int64_t seed_stride,
                 const Chunks& chunks, int64_t begin, int64_t end, Choice* choices) {
  Choice best;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t row = item / chunks.chunks, chunk = item % chunks.chunks;
    const int64_t first = chunk * chunks.size, last = HWY_MIN(first + chunks.size, logits.width);
    // The best of earlier chunks of the row makes fewer elements of this one candidates.
    if (chunk == 0) best = Choice();
    if (seeds == nullptr) {
      ScanGreedy(logits.Row<const T>(row), first, last, best);
    } else {
      ScanGumbel(logits.Row<const T>(row), static_cast<uint64_t>(seeds[row * seed_stride]), first,
                 last, best);
    }
    choices[item] = best;
  }
}

// Processes items [begin, end) of rows cut into chunks. choices[item] is at least as good as the
// best of its chunk.
void Choose(const Rows& logits, const int64_t* seeds, int64_t seed_stride, const Chunks& chunks,
            int64_t begin, int64_t end, Choice* choices) {
  WithType(logits.dtype, [&](auto element) HWY_ATTR {
    ChooseItems<decltype(element)>(logits, seeds, seed_stride, chunks, begin, end, choices);
  });
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

HWY_EXPORT(Choose);

// Large enough that a thread's first examination of a row, which is more expensive, does not
// matter; small enough to share one row among threads.
constexpr int64_t kChunk = 8192;

void ChooseTokens(const Rows& logits, const int64_t* seeds, int64_t seed_stride, int64_t* tokens) {
  const Chunks chunks{kChunk, (logits.width + kChunk - 1) / kChunk};
  std::vector<Choice> choices(static_cast<size_t>(logits.count * chunks.chunks));
  auto& function = VLLM_CPU_DISPATCH(Choose);
  const int64_t elements = std::min(kChunk, logits.width) * (seeds == nullptr ? 1 : 4);
  ParallelFor(logits.count * chunks.chunks, elements, [&](int64_t begin, int64_t end) {
    function(logits, seeds, seed_stride, chunks, begin, end, choices.data());
  });
  for (int64_t row = 0; row < logits.count; ++row) {
    Choice best;
    for (int64_t chunk = 0; chunk < chunks.chunks; ++chunk)
      best.Merge(choices[row * chunks.chunks + chunk]);
    tokens[row] = best.index;
  }
}

}  // namespace

void ChooseTokensGreedily(const Rows& logits, int64_t* tokens) {
  ChooseTokens(logits, nullptr, 0, tokens);
}

void SampleTokens(const Rows& logits, const int64_t* seeds, int64_t seed_stride, int64_t* tokens) {
  ChooseTokens(logits, seeds, seed_stride, tokens);
}

}  // namespace vllm
#endif  // HWY_ONCE
