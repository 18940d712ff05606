// SPDX-License-Identifier: Apache-2.0
// Shared by all quantising kernels: rounding to int8, the largest magnitude of a row, division by a
// scale. Compiled once for each target.
#if defined(VLLM_QUANT_QUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_QUANT_QUANTIZE_INL_H_
#undef VLLM_QUANT_QUANTIZE_INL_H_
#else
#define VLLM_QUANT_QUANTIZE_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/fp8-inl.h"
#include "core/reduce-inl.h"
#include "core/span-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

using VI32 = hn::Vec<hn::RebindToSigned<F32>>;

// 1.5 * 2^23: near it, float32 numbers are integers. An addition to it rounds and leaves the
// integer in the low bits.
constexpr float kIntegerShift = 12582912.0f;

// Rounds numbers with a magnitude below 2^21, ties to even.
HWY_INLINE VI32 RoundInRange(VF32 v) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const VF32 shift = hn::Set(d, kIntegerShift);
  return hn::Sub(hn::BitCast(di, hn::Add(v, shift)), hn::BitCast(di, shift));
}

// Rounds v in [-128, 127] to the nearest integer, ties to even, with saturation; NaN gives 0.
HWY_INLINE VI32 RoundToInt8(VF32 v) {
  const F32 d;
  v = hn::IfThenElseZero(hn::Eq(v, v), v);
  return RoundInRange(
      SmallerOfNumbers(LargerOfNumbers(v, hn::Set(d, -128.0f)), hn::Set(d, 127.0f)));
}

HWY_INLINE void Store(VF32 v, int8_t* HWY_RESTRICT p) {
  const hn::Rebind<int8_t, F32> d8;
  hn::StoreU(hn::DemoteTo(d8, RoundToInt8(v)), d8, p);
}

HWY_INLINE void StoreTail(VF32 v, int8_t* HWY_RESTRICT p, size_t n) {
  const hn::Rebind<int8_t, F32> d8;
  hn::StoreN(hn::DemoteTo(d8, RoundToInt8(v)), d8, p, n);
}

template <bool kSplit>
HWY_INLINE void StoreFour(VF32 v0, VF32 v1, VF32 v2, VF32 v3, int8_t* HWY_RESTRICT p) {
  hn::StoreU(NarrowFour<kSplit>(RoundToInt8(v0), RoundToInt8(v1), RoundToInt8(v2), RoundToInt8(v3)),
             hn::Repartition<int8_t, F32>(), p);
}

// Stores the first n numbers of a source (core/span-inl.h) as codes of Q.
template <typename Q, class Source>
HWY_INLINE void QuantizeSpan(const Source& source, Q* HWY_RESTRICT to, size_t n) {
  const size_t lanes = hn::Lanes(F32());
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    VF32 v0, v1, v2, v3;
    source.ReadTwo(i, v0, v1);
    source.ReadTwo(i + 2 * lanes, v2, v3);
    StoreFour<Source::kSplit>(v0, v1, v2, v3, to + i);
  }
  for (; i < n; i += lanes) {
    const size_t part = HWY_MIN(lanes, n - i);
    StoreTail(source.ReadTail(i, part), to + i, part);
  }
}

// v / divisor, correctly rounded.
struct Over {
  float divisor;
  HWY_INLINE VF32 operator()(VF32 v) const { return hn::Div(v, hn::Set(F32(), divisor)); }
};

// The same from the divisor's correctly rounded reciprocal, in three operations of which a core
// starts two in each cycle. The first product is within a unit, its remainder is exact with a fused
// multiply-add, and the correction rounds as a division does (Markstein, IBM Journal of Research
// and Development 34(1), 1990). Quotients must not overflow; those below about 2^-100 may be off by
// a unit.
struct OverByReciprocal {
  float divisor;
  float reciprocal;
  HWY_INLINE VF32 operator()(VF32 v) const {
    const VF32 factor = hn::Set(F32(), reciprocal);
    const VF32 quotient = hn::Mul(v, factor);
    // The remainder is negated, so that the quotient of a zero keeps the zero's sign.
    return hn::NegMulAdd(hn::MulSub(quotient, hn::Set(F32(), divisor), v), factor, quotient);
  }
};

// Calls f with a function object that divides numbers of magnitude up to `largest` by `divisor`.
template <class F>
HWY_INLINE void WithDivision(float divisor, [[maybe_unused]] float largest, const F& f) {
#if HWY_NATIVE_FMA
  const float reciprocal = 1.0f / divisor;
  if (std::isfinite(largest * reciprocal)) return f(OverByReciprocal{divisor, reciprocal});
#endif
  f(Over{divisor});
}

// The largest magnitude of elements of T, NaN if one of them is NaN. Without their sign, the bits
// of floating-point numbers are ordered as integers, with NaN above infinity: no conversion is
// needed.
template <typename T>
struct LargestMagnitude {
  using Bits = hwy::SignedFromSize<sizeof(T)>;
  using D = hn::ScalableTag<Bits>;
  using V = hn::Vec<D>;

  HWY_INLINE V Begin() const { return hn::Zero(D()); }
  // With a vector of elements from x on.
  HWY_INLINE V Extend(V largest, const T* HWY_RESTRICT x) const {
    return LargerOfNumbers(largest, Clear(hn::LoadU(hn::ScalableTag<T>(), x)));
  }
  // With the first n elements.
  HWY_INLINE V ExtendTail(V largest, const T* HWY_RESTRICT x, size_t n) const {
    return LargerOfNumbers(largest, Clear(hn::LoadN(hn::ScalableTag<T>(), x, n)));
  }
  HWY_INLINE float Get(V largest) const {
    const Bits bits = LargestOfNumbers(D(), largest);
    T element;
    hwy::CopySameSize(&bits, &element);
    return hn::GetLane(LoadTail(&element, 1));
  }

 private:
  static HWY_INLINE V Clear(hn::Vec<hn::ScalableTag<T>> v) {
    return hn::And(hn::BitCast(D(), v), hn::Set(D(), hwy::LimitsMax<Bits>()));
  }
};

// Returns the largest magnitude of n elements, NaN if one of them is NaN, 0 if there are none.
template <typename T>
HWY_INLINE float FindRowAbsMaxOrNaN(const T* HWY_RESTRICT x, size_t n) {
  const LargestMagnitude<T> largest;
  const size_t lanes = hn::Lanes(typename LargestMagnitude<T>::D());
  auto bits0 = largest.Begin(), bits1 = bits0;
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    bits0 = largest.Extend(bits0, x + i);
    bits1 = largest.Extend(bits1, x + i + lanes);
  }
  for (; i < n; i += lanes) bits0 = largest.ExtendTail(bits0, x + i, HWY_MIN(lanes, n - i));
  return largest.Get(LargerOfNumbers(bits0, bits1));
}

// Returns the largest magnitude of n elements, ignoring NaN; 0 if there are none.
template <typename T>
HWY_INLINE float FindRowAbsMax(const T* HWY_RESTRICT x, size_t n) {
  const float found = FindRowAbsMaxOrNaN(x, n);
  if (!std::isnan(found)) return found;
  const F32 d;
  VF32 numbers = hn::Zero(d);
  for (size_t i = 0; i < n; i += hn::Lanes(d))
    numbers = LargerNumber(hn::Abs(LoadTail(x + i, HWY_MIN(hn::Lanes(d), n - i))), numbers);
  return LargestOfNumbers(d, numbers);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_QUANT_QUANTIZE_INL_H_
