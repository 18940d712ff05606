// SPDX-License-Identifier: Apache-2.0
// Online softmax of rows of scores. Compiled once for each target.
#if defined(VLLM_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ATTENTION_SOFTMAX_INL_H_
#undef VLLM_ATTENTION_SOFTMAX_INL_H_
#else
#define VLLM_ATTENTION_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "hwy/highway.h"

#include "attention/tile.h"
#include "core/constants.h"
#include "core/exp2-inl.h"
#include "core/reduce-inl.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Scores are in units of log 2, so that 2^s needs no multiplication before the exponent is split
// off.
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The operations on the scores of one row before their exponential.
struct ScoreTerms {
  float scale = 1.0f;     // of the products of queries and keys, in units of log 2
  float cap = 0.0f;       // 0: none; else in units of log 2
  float slope = 0.0f;     // of the distance between key and query, in units of log 2
  float distance = 0.0f;  // of the row's first score: key position minus query position
};

// cap * tanh(s / cap)
HWY_INLINE VF32 CapScores(VF32 s, float cap) {
  const F32 d;
  const VF32 one = hn::Set(d, 1.0f);
  // tanh(x) = 1 - 2 / (e^(2x) + 1), which is 1 in float32 from |x| = 9.01 on.
  VF32 x = hn::Mul(s, hn::Set(d, 1.0f / cap));
  x = ClampToMin(ClampToMax(x, hn::Set(d, 10.0f)), hn::Set(d, -10.0f));
  const VF32 power = Exp2(hn::Mul(x, hn::Set(d, 2.0f * kLog2E)));
  return hn::Mul(hn::Sub(one, hn::Div(hn::Set(d, 2.0f), hn::Add(power, one))), hn::Set(d, cap));
}

HWY_INLINE VF32 AddTerms(VF32 s, const ScoreTerms& terms, size_t i) {
  const F32 d;
  s = hn::Mul(s, hn::Set(d, terms.scale));
  if (terms.cap != 0.0f) s = CapScores(s, terms.cap);
  if (terms.slope != 0.0f) {
    s = hn::MulAdd(hn::Iota(d, terms.distance + static_cast<float>(i)), hn::Set(d, terms.slope), s);
  }
  return s;
}

// Stores the weights of a vector of scores: p, or its first n elements, rounded to W. Returns them
// as float32.
template <typename W>
HWY_INLINE VF32 StoreWeights(VF32 p, W* to) {
  Store(p, to);
  return RoundTo<W>(p);
}
template <typename W>
HWY_INLINE VF32 StoreWeightsTail(VF32 p, W* to, size_t n) {
  StoreTail(p, to, n);
  return RoundTo<W>(p);
}

// Turns products of queries and keys, [begin, end) of a row, into weights: the exponentials of the
// scores relative to the largest one so far, rounded to W. Writes zeros to the rest of [0, count),
// and updates the row's state with the rounded weights, so that their quotients add up to one.
// Returns the factor for earlier sums of the row. `weights` may be `s`; other scores are lost too.
//
// The largest score ignores NaN, but the sum does not: the exponential of NaN is NaN, so the sum is
// NaN, and each output of the row is divided by the sum. A score of +infinity has the same effect,
// as in torch.softmax.
template <typename W>
HWY_INLINE float ApplySoftmax(float* s, size_t begin, size_t end, size_t count,
                              const ScoreTerms& terms, W* weights, RowState& state) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  if (begin >= end) begin = end = count;
  std::fill(weights, weights + begin, W());
  if (begin == end) return 1.0f;
  const bool plain = terms.cap == 0.0f && terms.slope == 0.0f;
  const VF32 scale = hn::Set(d, plain ? terms.scale : 1.0f);
  VF32 largest0 = hn::Set(d, state.largest), largest1 = largest0;
  size_t i = begin;
  if (plain) {
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      largest0 = LargerNumber(hn::Mul(Load(s + i), scale), largest0);
      largest1 = LargerNumber(hn::Mul(Load(s + i + lanes), scale), largest1);
    }
  }
  for (; i + lanes <= end; i += lanes) {
    const VF32 v = AddTerms(Load(s + i), terms, i);
    if (!plain) Store(v, s + i);
    largest0 = LargerNumber(v, largest0);
  }
  if (i < end) {
    const VF32 v = AddTerms(LoadTail(s + i, end - i), terms, i);
    if (!plain) StoreTail(v, s + i, end - i);
    largest1 = LargerNumber(hn::IfThenElse(hn::FirstN(d, end - i), v, hn::Set(d, kMinusInfinity)),
                            largest1);
  }
  const float largest = LargestOfNumbers(d, LargerOfNumbers(largest0, largest1));
  // If no score exceeds -infinity: exponentials of -infinity are zeros, those of NaN are NaN.
  const VF32 reference = hn::Set(d, largest == kMinusInfinity ? 0.0f : largest);
  VF32 sum0 = hn::Zero(d), sum1 = sum0;
  i = begin;
  for (; i + 2 * lanes <= end; i += 2 * lanes) {
    const VF32 p0 = Exp2(hn::MulSub(Load(s + i), scale, reference)),
               p1 = Exp2(hn::MulSub(Load(s + i + lanes), scale, reference));
    sum0 = hn::Add(sum0, StoreWeights(p0, weights + i));
    sum1 = hn::Add(sum1, StoreWeights(p1, weights + i + lanes));
  }
  for (; i < end; i += lanes) {
    const size_t n = HWY_MIN(lanes, end - i);
    const VF32 p = hn::IfThenElseZero(hn::FirstN(d, n),
                                      Exp2(hn::MulSub(LoadTail(s + i, n), scale, reference)));
    sum0 = hn::Add(sum0, StoreWeightsTail(p, weights + i, n));
  }
  std::fill(weights + end, weights + count, W());
  const float factor = state.largest == kMinusInfinity ? 0.0f : std::exp2(state.largest - largest);
  state.sum = state.sum * factor + hn::ReduceSum(d, hn::Add(sum0, sum1));
  state.largest = largest;
  return factor;
}

// row *= factor, for whole vectors.
HWY_INLINE void ScaleRow(float* HWY_RESTRICT row, size_t n, float factor) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 v = hn::Set(F32(), factor);
  for (size_t i = 0; i < n; i += lanes) Store(hn::Mul(Load(row + i), v), row + i);
}

// Adds the sums of other keys of the same rows: sums [rows, n] and states [rows], where n is whole
// vectors.
HWY_INLINE void AddRows(const float* HWY_RESTRICT other_sums, const RowState* other_states,
                        float* HWY_RESTRICT sums, RowState* states, size_t rows, size_t n) {
  const size_t lanes = hn::Lanes(F32());
  for (size_t row = 0; row < rows; ++row, other_sums += n, sums += n) {
    RowState& mine = states[row];
    const RowState& other = other_states[row];
    if (other.sum == 0.0f) continue;
    const float largest = LargerNumber(mine.largest, other.largest);
    const float my_factor = mine.sum == 0.0f ? 0.0f : std::exp2(mine.largest - largest);
    const float other_factor = std::exp2(other.largest - largest);
    const VF32 v_mine = hn::Set(F32(), my_factor), v_other = hn::Set(F32(), other_factor);
    for (size_t i = 0; i < n; i += lanes)
      Store(hn::MulAdd(Load(sums + i), v_mine, hn::Mul(Load(other_sums + i), v_other)), sums + i);
    mine.sum = mine.sum * my_factor + other.sum * other_factor;
    mine.largest = largest;
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ATTENTION_SOFTMAX_INL_H_
