// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "quant/int8.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/int8_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "quant/int8-inl.h"

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

// Writes round(v * factor) + azp for n elements. `in_range` says that they are numbers and the
// products int16.
template <typename T>
HWY_INLINE void ShiftRow(const T* x, int8_t* HWY_RESTRICT to, size_t n, float factor, int32_t azp,
                         bool in_range) {
  if (std::abs(int64_t{azp}) <= INT16_MAX) {
    const int16_t added = static_cast<int16_t>(azp);
    if (in_range) {
      RoundSpan<false>(x, to, n, Times{factor}, added);
      return;
    }
    const float largest = RoundSpan<true>(x, to, n, Times{factor}, added);
    if (largest * std::fabs(factor) < kRoundBelow) return;
  }
  ShiftSpan(x, to, n, Shifted(factor, azp));
}

// Whether round(v * reciprocal) is round(v / divisor) for all elements v of T with a quotient in
// int8. It is if no v is so close to a divisor's half that the product may be on the other side.
// 98 % of all divisors satisfy this for bfloat16, hardly one for float32.
template <typename T>
bool RoundsWithReciprocal(float divisor) {
  int exponent = 0;
  if (std::fabs(std::frexp(divisor, &exponent)) == 0.5f) return true;
  // Subnormal numbers may be lost when they are rounded to T.
  if (sizeof(T) == sizeof(float) || std::fabs(divisor) < 0x1p-100f) return false;
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  auto close = hn::MaskFalse(d);
  for (size_t i = 0; i < 128; i += lanes) {
    const VF32 half = hn::Mul(hn::Iota(d, static_cast<float>(i) + 0.5f), hn::Set(d, divisor));
    const VF32 distance = hn::Abs(hn::Sub(RoundTo<T>(half), half));
    close = hn::Or(close, hn::Le(distance, hn::Mul(hn::Abs(half), hn::Set(d, 0x1p-21f))));
  }
  return hn::AllFalse(d, close);
}

// Writes x / divisor, rounded, as QuantizeSpan does. Most elements are numbers in range.
template <typename T>
HWY_INLINE void DivideSpan(const T* x, int8_t* HWY_RESTRICT to, size_t n, float divisor,
                           bool multiplies) {
  const OverByReciprocal over{divisor, 1.0f / divisor};
  // A subnormal reciprocal is inexact.
  if (HWY_NATIVE_FMA && std::isnormal(over.reciprocal)) {
    const float largest = multiplies ? RoundSpan<true>(x, to, n, Times{over.reciprocal})
                                     : RoundSpan<true>(x, to, n, over);
    if (largest * std::fabs(over.reciprocal) < kRoundBelow) return;
  }
  QuantizeSpan(Mapped(x, Over{divisor}), to, n);
}

// The same for float32, of which few divisors permit multiplying with the reciprocal, but nearly
// all elements.
HWY_INLINE void DivideSpan(const float* x, int8_t* HWY_RESTRICT to, size_t n, float divisor,
                           bool /*multiplies*/) {
  const size_t group = 4 * hn::Lanes(F32());
  const float reciprocal = 1.0f / divisor;
  size_t i = 0;
  if (HWY_NATIVE_FMA && std::isnormal(reciprocal)) {
    const size_t whole = n / group * group;
    for (; i < whole; i += group) {
      i += RoundByReciprocal(x + i, to + i, whole - i, reciprocal);
      if (i == whole) break;
      QuantizeSpan(Mapped(x + i, Over{divisor}), to + i, group);
    }
  }
  QuantizeSpan(Mapped(x + i, Over{divisor}), to + i, n - i);
}

// Quantises elements [begin, end), numbered across rows.
template <typename T>
HWY_NOINLINE void QuantizeSpanStatic(const Rows& out, const Rows& input, float scale,
                                     const int32_t* azp, int64_t begin, int64_t end) {
  const bool multiplies = azp == nullptr && RoundsWithReciprocal<T>(scale);
  while (begin < end) {
    const int64_t row = begin / input.width;
    const int64_t column = begin % input.width;
    // A part that is computed again, if it is out of range, is in the first-level cache.
    const int64_t n = std::min({end - begin, input.width - column, int64_t{2048}});
    const T* x = input.Row<T>(row) + column;
    int8_t* to = out.Row<int8_t>(row) + column;
    if (azp == nullptr) {
      DivideSpan(x, to, static_cast<size_t>(n), scale, multiplies);
    } else {
      ShiftRow(x, to, static_cast<size_t>(n), 1.0f / scale, *azp, false);
    }
    begin += n;
  }
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
      RoundSpan<false>(x, to, width, Times{factor});
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
    const float farthest = LargerNumber(std::fabs(least), std::fabs(largest));
    ShiftRow(x, to, width, factor, azp, numbers && farthest * factor < kRoundBelow);
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
