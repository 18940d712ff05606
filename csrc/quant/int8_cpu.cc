// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "quant/int8.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/int8_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

int32_t ClampToInt32(int64_t value) {
  return static_cast<int32_t>(std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(),
                                                  std::numeric_limits<int32_t>::max()));
}

// Returns round(v * factor) + azp as int8. The rounded product and azp may be any int32:
// subtracting azp from the limits first prevents the sum from overflowing.
struct Shifted {
  Shifted(float multiplier, int32_t zero_point)
      : factor(multiplier),
        azp(zero_point),
        low(ClampToInt32(int64_t{-128} - azp)),
        high(ClampToInt32(int64_t{127} - azp)) {}

  HWY_INLINE VI32 operator()(VF32 v) const {
    const hn::RebindToSigned<F32> di;
    VF32 product = hn::Mul(v, hn::Set(F32(), factor));
    product = hn::IfThenElseZero(hn::Eq(product, product), product);
    const VI32 rounded = hn::NearestInt(product);
    return hn::Add(SmallerOfNumbers(LargerOfNumbers(rounded, hn::Set(di, low)), hn::Set(di, high)),
                   hn::Set(di, azp));
  }

  float factor;
  int32_t azp, low, high;
};

// The same for products with a magnitude below InRangeInt8::kBelow, without NaN, whose sums with
// azp are in int8 or just outside it.
struct ShiftedInRange {
  float factor;
  int32_t azp;

  HWY_INLINE VI32 operator()(VF32 v) const {
    const hn::RebindToSigned<F32> di;
    return hn::Add(RoundInRange(hn::Mul(v, hn::Set(F32(), factor))), hn::Set(di, azp));
  }
};

template <typename T, class F>
HWY_INLINE void ShiftSpan(const T* x, int8_t* HWY_RESTRICT to, size_t n, const F& f) {
  const size_t lanes = hn::Lanes(F32());
  const hn::Rebind<int8_t, F32> d8;
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    VF32 v0, v1, v2, v3;
    LoadSplit(x + i, v0, v1);
    LoadSplit(x + i + 2 * lanes, v2, v3);
    hn::StoreU(NarrowFour<kSplits<T>>(f(v0), f(v1), f(v2), f(v3)), hn::Repartition<int8_t, F32>(),
               to + i);
  }
  for (; i < n; i += lanes) {
    const size_t left = HWY_MIN(lanes, n - i);
    hn::StoreN(hn::DemoteTo(d8, f(LoadTail(x + i, left))), d8, to + i, left);
  }
}

// Writes x / divisor, rounded, as QuantizeSpan does. Most elements are numbers in range, for which
// the quotient takes three operations (OverByReciprocal) and rounding one.
template <typename T>
HWY_INLINE void DivideSpan(const T* x, int8_t* HWY_RESTRICT to, size_t n, float divisor) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const size_t lanes = hn::Lanes(d);
  const VI32 below = hn::BitCast(di, hn::Set(d, InRangeInt8::kBelow));
  const OverByReciprocal over{divisor, 1.0f / divisor};
  // A subnormal reciprocal is inexact.
  const bool corrects = HWY_NATIVE_FMA && std::isnormal(over.reciprocal);
  size_t i = 0;
  for (; corrects && i + 4 * lanes <= n; i += 4 * lanes) {
    VF32 v0, v1, v2, v3;
    LoadSplit(x + i, v0, v1);
    LoadSplit(x + i + 2 * lanes, v2, v3);
    v0 = over(v0);
    v1 = over(v1);
    v2 = over(v2);
    v3 = over(v3);
    // The bits of magnitudes are ordered as integers, with NaN above all numbers; too large
    // quotients have become NaN.
    const auto bits = [&](VF32 v) HWY_ATTR { return hn::BitCast(di, hn::Abs(v)); };
    const VI32 largest =
        LargerOfNumbers(LargerOfNumbers(bits(v0), bits(v1)), LargerOfNumbers(bits(v2), bits(v3)));
    if (HWY_LIKELY(hn::AllTrue(di, hn::Lt(largest, below)))) {
      StoreFour<kSplits<T>>(v0, v1, v2, v3, reinterpret_cast<InRangeInt8*>(to + i));
    } else {
      QuantizeSpan(Mapped(x + i, Over{divisor}), to + i, 4 * lanes);
    }
  }
  QuantizeSpan(Mapped(x + i, Over{divisor}), to + i, n - i);
}

// Quantises elements [begin, end), numbered across rows.
template <typename T>
HWY_NOINLINE void QuantizeSpanStatic(const Rows& out, const Rows& input, float scale,
                                     const int32_t* azp, int64_t begin, int64_t end) {
  while (begin < end) {
    const int64_t row = begin / input.width;
    const int64_t column = begin % input.width;
    const int64_t n = std::min(end - begin, input.width - column);
    const T* x = input.Row<T>(row) + column;
    int8_t* to = out.Row<int8_t>(row) + column;
    if (azp == nullptr) {
      DivideSpan(x, to, static_cast<size_t>(n), scale);
    } else {
      ShiftSpan(x, to, static_cast<size_t>(n), Shifted(1.0f / scale, *azp));
    }
    begin += n;
  }
}

// The extremes of the numbers of a row. If there are none, the smallest is infinity and the largest
// -infinity.
struct Extremes {
  float least, largest;
  bool numbers;  // whether it is certain that no element is NaN
};

template <typename T>
HWY_INLINE Extremes FindExtremes(const T* HWY_RESTRICT x, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  VF32 low0 = hn::Inf(d), low1 = low0, high0 = hn::Neg(low0), high1 = high0;
  // NaN if there is one, or infinities of both signs.
  VF32 sum0 = hn::Zero(d), sum1 = sum0;
  const auto extend = [](VF32 v, VF32& low, VF32& high, VF32& sum) HWY_ATTR {
    low = SmallerNumber(v, low);
    high = LargerNumber(v, high);
    sum = hn::Add(sum, v);
  };
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    VF32 v0, v1;
    LoadSplit(x + i, v0, v1);
    extend(v0, low0, high0, sum0);
    extend(v1, low1, high1, sum1);
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

template <typename T>
HWY_NOINLINE void QuantizeRowsSymmetric(const Rows& out, const Rows& input, float* scales,
                                        int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = input.Row<T>(row);
    int8_t* to = out.Row<int8_t>(row);
    float largest = FindRowAbsMaxOrNaN(x, width);
    const bool finite = std::isfinite(largest);
    if (std::isnan(largest)) largest = FindRowAbsMax(x, width);
    scales[row] = largest / 127.0f;
    // Finite, so that zeros next to subnormal numbers stay zeros.
    const float factor =
        largest == 0.0f ? 0.0f : SmallerNumber(127.0f / largest, std::numeric_limits<float>::max());
    if (finite) {
      QuantizeSpan(Mapped(x, Times{factor}), reinterpret_cast<InRangeInt8*>(to), width);
    } else {
      QuantizeSpan(Mapped(x, Times{factor}), to, width);
    }
  }
}

template <typename T>
HWY_NOINLINE void QuantizeRowsAsymmetric(const Rows& out, const Rows& input, float* scales,
                                         int32_t* azps, int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = input.Row<T>(row);
    auto [least, largest, numbers] = FindExtremes(x, width);
    if (least > largest) least = largest = 0.0f;
    if (least == largest) {
      least = SmallerNumber(least, 0.0f);
      largest = LargerNumber(largest, 0.0f);
    }
    const float scale = (largest - least) / 255.0f;
    const float zero = scale == 0.0f ? 0.0f : std::nearbyint(-128.0f - least / scale);
    // If numbers are so close to each other that the zero point exceeds int32, only their order is
    // kept.
    const int32_t azp =
        std::isnan(zero)
            ? 0
            : ClampToInt32(static_cast<int64_t>(ClampToMax(ClampToMin(zero, -0x1p31f), 0x1p31f)));
    scales[row] = scale;
    azps[row] = azp;
    const float factor = scale == 0.0f ? 0.0f : 1.0f / scale;
    int8_t* to = out.Row<int8_t>(row);
    if (numbers &&
        LargerNumber(std::fabs(least), std::fabs(largest)) * factor < InRangeInt8::kBelow) {
      ShiftSpan(x, to, width, ShiftedInRange{factor, azp});
    } else {
      ShiftSpan(x, to, width, Shifted(factor, azp));
    }
  }
}

void QuantizeStaticRange(const Rows& out, const Rows& input, float scale, const int32_t* azp,
                         int64_t begin, int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    QuantizeSpanStatic<decltype(element)>(out, input, scale, azp, begin, end);
  });
}

void QuantizeDynamicRange(const Rows& out, const Rows& input, float* scales, int32_t* azps,
                          int64_t begin, int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    if (azps == nullptr) {
      QuantizeRowsSymmetric<decltype(element)>(out, input, scales, begin, end);
    } else {
      QuantizeRowsAsymmetric<decltype(element)>(out, input, scales, azps, begin, end);
    }
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(QuantizeStaticRange);
HWY_EXPORT(QuantizeDynamicRange);

void QuantizeInt8Static(const Rows& out, const Rows& input, const float* scale,
                        const int32_t* azp) {
  auto& function = VLLM_CPU_DISPATCH(QuantizeStaticRange);
  ParallelFor(input.count * input.width, 1,
              [&](int64_t begin, int64_t end) { function(out, input, *scale, azp, begin, end); });
}

void QuantizeInt8Dynamic(const Rows& out, const Rows& input, float* scales, int32_t* azps) {
  auto& function = VLLM_CPU_DISPATCH(QuantizeDynamicRange);
  ParallelFor(input.count, input.width,
              [&](int64_t begin, int64_t end) { function(out, input, scales, azps, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
