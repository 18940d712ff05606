// SPDX-License-Identifier: Apache-2.0
// Rounds rows to int8. Compiled once for each target.
#if defined(VLLM_QUANT_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_QUANT_INT8_INL_H_
#undef VLLM_QUANT_INT8_INL_H_
#else
#define VLLM_QUANT_INT8_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/pairs-inl.h"
#include "core/reduce-inl.h"
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

using I8 = hn::Repartition<int8_t, F32>;
using I16 = hn::Repartition<int16_t, F32>;

// RoundSpan is right for numbers whose magnitude is below this after f. Their sum with a zero point
// of int16 saturates like a sum of any width.
constexpr float kRoundBelow = 0x1p15f - 1.0f;

// Narrows four vectors of integers, with azp added and saturation.
HWY_INLINE hn::Vec<I8> AddAndNarrow(VI32 v0, VI32 v1, VI32 v2, VI32 v3, hn::Vec<I16> azp) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  // Instructions that narrow do so within blocks of 128 bits; one permutation puts all in order.
  const hn::RebindToSigned<F32> di;
  alignas(64) static constexpr int32_t kOrder[2][16] = {
      {0, 4, 1, 5, 2, 6, 3, 7}, {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15}};
  const auto low = hn::SaturatedAdd(hn::ReorderDemote2To(I16(), v0, v1), azp);
  const auto high = hn::SaturatedAdd(hn::ReorderDemote2To(I16(), v2, v3), azp);
  const auto codes = hn::BitCast(di, hn::ReorderDemote2To(I8(), low, high));
  return hn::BitCast(
      I8(), hn::TableLookupLanes(codes, hn::SetTableIndices(di, kOrder[hn::MaxLanes(di) / 16])));
#else
  return hn::OrderedDemote2To(I8(), hn::SaturatedAdd(hn::OrderedDemote2To(I16(), v0, v1), azp),
                              hn::SaturatedAdd(hn::OrderedDemote2To(I16(), v2, v3), azp));
#endif
}

// Rounds 4 * Lanes(F32()) numbers, adds azp and saturates.
template <typename T, class F>
HWY_INLINE hn::Vec<I8> RoundFour(const T* HWY_RESTRICT x, const F& f, hn::Vec<I16> azp) {
  const size_t lanes = hn::Lanes(F32());
  if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    // A shift and a mask separate even and odd elements, and a shift and a blend join their low
    // halves, which are the integers: no element moves to another lane until the last step.
    const VF32 shift = hn::Set(F32(), kIntegerShift);
    const auto load = [&](size_t i) VLLM_INLINE_ATTR {
      VF32 even = hn::Zero(F32()), odd = even;
      LoadPairs(x + i, even, odd);
      const hn::RebindToSigned<F32> di;
      const auto low = hn::BitCast(I16(), hn::Add(f(even), shift));
      const auto high = hn::ShiftLeft<16>(hn::BitCast(di, hn::Add(f(odd), shift)));
      return hn::SaturatedAdd(hn::OddEven(hn::BitCast(I16(), high), low), azp);
    };
    return hn::OrderedDemote2To(I8(), load(0), load(2 * lanes));
  } else {
    const auto load = [&](size_t i)
                          VLLM_INLINE_ATTR { return RoundInRange(f(Load(x + i * lanes))); };
    return AddAndNarrow(load(0), load(1), load(2), load(3), azp);
  }
}

// Writes round(x / divisor) with saturation for n numbers, of which n is a multiple of 4 *
// Lanes(F32()), unless a quotient is so close to the middle of two integers that the product with
// the reciprocal may be on the other side, or is not a number or too large. Returns how many have
// been written.
HWY_INLINE size_t RoundByReciprocal(const float* HWY_RESTRICT x, int8_t* HWY_RESTRICT to, size_t n,
                                    float reciprocal) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const size_t lanes = hn::Lanes(d);
  const VF32 factor = hn::Set(d, reciprocal), shift = hn::Set(d, kIntegerShift);
  // Products and quotients below 256 differ by less than 2^-15.
  const VI32 limit = hn::BitCast(di, hn::Set(d, 0.5f - 0x1p-15f));
  for (size_t i = 0; i < n; i += 4 * lanes) {
    VI32 farthest = hn::Zero(di);
    const auto round = [&](size_t k) VLLM_INLINE_ATTR {
      const VF32 v = Load(x + i + k * lanes), shifted = hn::MulAdd(v, factor, shift);
      const VF32 rest = hn::MulSub(v, factor, hn::Sub(shifted, shift));
      farthest = LargerOfNumbers(farthest, hn::BitCast(di, hn::Abs(rest)));
      return hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, shift));
    };
    const VI32 v0 = round(0), v1 = round(1), v2 = round(2), v3 = round(3);
    if (HWY_UNLIKELY(!hn::AllTrue(di, hn::Lt(farthest, limit)))) return i;
    hn::StoreU(AddAndNarrow(v0, v1, v2, v3, hn::Zero(I16())), I8(), to + i);
  }
  return n;
}

// Writes round(f(x)) + azp with saturation for n numbers; ties to even. The results are right if
// those of f are below kRoundBelow. With kCheck, returns the largest magnitude of x, or NaN if
// there is a NaN.
template <bool kCheck, typename T, class F>
HWY_INLINE float RoundSpan(const T* HWY_RESTRICT x, int8_t* HWY_RESTRICT to, size_t n, const F& f,
                           int16_t azp = 0) {
  const size_t lanes = hn::Lanes(F32());
  const auto added = hn::Set(I16(), azp);
  LargestMagnitude<T> largest;
  auto bits0 = largest.Begin(), bits1 = bits0;
  constexpr size_t kVector = sizeof(float) / sizeof(T);  // in lanes of float32
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    hn::StoreU(RoundFour(x + i, f, added), I8(), to + i);
    for (size_t k = 0; kCheck && k < 4; k += 2 * kVector) {
      bits0 = largest.Extend(bits0, x + i + k * lanes);
      bits1 = largest.Extend(bits1, x + i + (k + kVector) * lanes);
    }
  }
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<int8_t, F32> d8;
  for (; i < n; i += lanes) {
    const size_t left = HWY_MIN(lanes, n - i);
    const VI32 rounded = hn::Add(RoundInRange(f(LoadTail(x + i, left))), hn::Set(di, azp));
    hn::StoreN(hn::DemoteTo(d8, rounded), d8, to + i, left);
    if constexpr (kCheck) bits0 = largest.ExtendTail(bits0, x + i, left);
  }
  return kCheck ? largest.Get(LargerOfNumbers(bits0, bits1)) : 0.0f;
}

// The extremes of the numbers of a row. If there are none, the smallest is infinity and the largest
// -infinity.
struct Extremes {
  float least, largest;
  bool numbers;  // whether it is certain that no element is NaN
};

// For elements of 16 bits, whose bits become ordered integers if those of negative numbers are
// inverted. NaN are beyond infinity then.
template <typename T>
HWY_INLINE Extremes FindExtremesOfHalves(const T* HWY_RESTRICT x, size_t n) {
  const hn::ScalableTag<int16_t> d;
  const size_t lanes = hn::Lanes(d);
  const auto order = [&](hn::Vec<decltype(d)> bits) VLLM_INLINE_ATTR {
    return hn::Xor(bits, hn::And(hn::BroadcastSignBit(bits), hn::Set(d, INT16_MAX)));
  };
  const auto* from = reinterpret_cast<const int16_t*>(x);
  const auto first = order(hn::Set(d, *from));
  auto low0 = first, low1 = first, high0 = first, high1 = first;
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto v0 = order(hn::LoadU(d, from + i)), v1 = order(hn::LoadU(d, from + i + lanes));
    low0 = SmallerOfNumbers(low0, v0);
    low1 = SmallerOfNumbers(low1, v1);
    high0 = LargerOfNumbers(high0, v0);
    high1 = LargerOfNumbers(high1, v1);
  }
  for (; i < n; i += lanes) {
    const size_t left = HWY_MIN(lanes, n - i);
    const auto v = hn::IfThenElse(hn::FirstN(d, left), order(hn::LoadN(d, from + i, left)), first);
    low0 = SmallerOfNumbers(low0, v);
    high0 = LargerOfNumbers(high0, v);
  }
  const auto restore = [](int16_t ordered) {
    const int16_t bits =
        static_cast<int16_t>(ordered < 0 ? ordered ^ INT16_MAX : static_cast<int>(ordered));
    T element;
    hwy::CopySameSize(&bits, &element);
    return hn::GetLane(LoadTail(&element, 1));
  };
  const float least = restore(SmallestOfNumbers(d, SmallerOfNumbers(low0, low1)));
  const float largest = restore(LargestOfNumbers(d, LargerOfNumbers(high0, high1)));
  return {least, largest, !std::isnan(least) && !std::isnan(largest)};
}

template <typename T>
HWY_INLINE Extremes FindExtremes(const T* HWY_RESTRICT x, size_t n) {
  if constexpr (sizeof(T) == sizeof(int16_t)) {
    if (n == 0) return {INFINITY, -INFINITY, true};
    const Extremes found = FindExtremesOfHalves(x, n);
    if (found.numbers) return found;
  }
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  VF32 low0 = hn::Inf(d), low1 = low0, high0 = hn::Neg(low0), high1 = high0;
  // NaN if there is one, or infinities of both signs.
  VF32 sum0 = hn::Zero(d), sum1 = sum0;
  const auto extend = [](VF32 v, VF32& low, VF32& high, VF32& sum) VLLM_INLINE_ATTR {
    low = SmallerNumber(v, low);
    high = LargerNumber(v, high);
    sum = hn::Add(sum, v);
  };
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    extend(Load(x + i), low0, high0, sum0);
    extend(Load(x + i + lanes), low1, high1, sum1);
  }
  if (i + lanes <= n) {
    extend(Load(x + i), low0, high0, sum0);
    i += lanes;
  }
  if (i < n) {
    // The lanes after the tail are set to its first element instead of zero.
    const VF32 first = hn::Set(d, hn::GetLane(LoadTail(x + i, 1)));
    extend(hn::IfThenElse(hn::FirstN(d, n - i), LoadTail(x + i, n - i), first), low0, high0, sum0);
  }
  return {SmallestOfNumbers(d, SmallerOfNumbers(low0, low1)),
          LargestOfNumbers(d, LargerOfNumbers(high0, high1)),
          !std::isnan(hn::ReduceSum(d, hn::Add(sum0, sum1)))};
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_QUANT_INT8_INL_H_
