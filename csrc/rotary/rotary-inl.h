// SPDX-License-Identifier: Apache-2.0
// The mathematics of rotary position embedding, for all kernels that include it. Compiled once for
// each target.
#if defined(VLLM_ROTARY_ROTARY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ROTARY_ROTARY_INL_H_
#undef VLLM_ROTARY_ROTARY_INL_H_
#else
#define VLLM_ROTARY_ROTARY_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/span-inl.h"
#include "core/with_type-inl.h"
#include "rotary/rotary.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Copies n elements of `from` as float32, times `sign`. With kSplit, in whole pairs of vectors and
// in LoadSplit's order for bfloat16.
template <bool kSplit, typename T>
HWY_INLINE void Widen(const T* HWY_RESTRICT from, float* HWY_RESTRICT to, size_t n, float sign) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF32 factor = hn::Set(d, sign);
  size_t i = 0;
  if constexpr (kSplit) {
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      VF32 v0, v1;
      if constexpr (kSplits<T>) {
        LoadSplit(from + i, v0, v1);
      } else {
        LoadSplitAs<hwy::bfloat16_t>(from + i, v0, v1);
        // RoundUpperHalf requires NaN that bfloat16 can hold.
        v0 = hn::IfThenElse(hn::IsNaN(v0), hn::NaN(d), v0);
        v1 = hn::IfThenElse(hn::IsNaN(v1), hn::NaN(d), v1);
      }
      Store(hn::Mul(v0, factor), to + i);
      Store(hn::Mul(v1, factor), to + i + lanes);
    }
  }
  for (; i < n; i += lanes) {
    const size_t part = HWY_MIN(lanes, n - i);
    StoreTail(hn::Mul(LoadTail(from + i, part), factor), to + i, part);
  }
}

HWY_INLINE void Rotate(VF32& x, VF32& y, VF32 cosine, VF32 sine) {
  const VF32 rotated = hn::NegMulAdd(y, sine, hn::Mul(x, cosine));
  y = hn::MulAdd(x, sine, hn::Mul(y, cosine));
  x = rotated;
}

// Rotates pairs (i, i + half) of one head. Their numbers come from a source (core/span-inl.h) and
// go to `head`; angles come from WidenRow<T, true>.
template <typename T, class Source>
HWY_INLINE void RotateHalves(const Source& source, T* head, const float* HWY_RESTRICT cosines,
                             const float* HWY_RESTRICT sines, size_t half) {
  const size_t lanes = hn::Lanes(F32());
  T* upper = head + half;
  size_t i = 0;
  for (; i + 2 * lanes <= half; i += 2 * lanes) {
    VF32 x0, x1, y0, y1;
    source.ReadTwo(i, x0, x1);
    source.ReadTwo(half + i, y0, y1);
    Rotate(x0, y0, Load(cosines + i), Load(sines + i));
    Rotate(x1, y1, Load(cosines + i + lanes), Load(sines + i + lanes));
    StoreSplit(x0, x1, head + i);
    StoreSplit(y0, y1, upper + i);
  }
  for (; i < half; i += lanes) {
    const size_t n = HWY_MIN(lanes, half - i);
    VF32 x = source.ReadTail(i, n), y = source.ReadTail(half + i, n);
    Rotate(x, y, LoadTail(cosines + i, n), LoadTail(sines + i, n));
    StoreTail(x, head + i, n);
    StoreTail(y, upper + i, n);
  }
}

// Rotates pairs (2i, 2i + 1) of one head in the same way; angles come from WidenRow<T, false>.
template <typename T, class Source>
HWY_INLINE void RotatePairs(const Source& source, T* head, const float* HWY_RESTRICT cosines,
                            const float* HWY_RESTRICT sines, size_t half) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    VF32 x, y;
    source.ReadTwo(2 * i, x, y);
    if constexpr (Source::kSplit) {
      Rotate(x, y, Load(cosines + i), Load(sines + i));
      StoreSplit(x, y, head + 2 * i);
    } else {
      VF32 even = hn::ConcatEven(d, y, x), odd = hn::ConcatOdd(d, y, x);
      Rotate(even, odd, Load(cosines + i), Load(sines + i));
      StoreTwo(hn::InterleaveWholeLower(d, even, odd), hn::InterleaveWholeUpper(d, even, odd),
               head + 2 * i);
    }
  }
  if (i < half) {
    const size_t n = half - i, low = HWY_MIN(lanes, 2 * n), high = 2 * n - low;
    const VF32 x = source.ReadTail(2 * i, low),
               y = high == 0 ? hn::Zero(d) : source.ReadTail(2 * i + low, high);
    VF32 even = hn::ConcatEven(d, y, x), odd = hn::ConcatOdd(d, y, x);
    Rotate(even, odd, LoadTail(cosines + i, n), LoadTail(sines + i, n));
    StoreTail(hn::InterleaveWholeLower(d, even, odd), head + 2 * i, low);
    if (high != 0) StoreTail(hn::InterleaveWholeUpper(d, even, odd), head + 2 * i + low, high);
  }
}

template <typename T, bool kNeox, class Source>
HWY_INLINE void RotateHead(const Source& source, T* head, const float* cosines, const float* sines,
                           size_t half) {
  if constexpr (kNeox) {
    RotateHalves(source, head, cosines, sines, half);
  } else {
    RotatePairs(source, head, cosines, sines, half);
  }
}

// Loads row `position` of the cache as float32: cosines, then signed sines, in the order in which
// heads of T are rotated.
template <typename T, bool kNeox>
HWY_INLINE void WidenRow(const RotaryCache& cache, int64_t position, bool inverse, float* to) {
  const size_t half = static_cast<size_t>(cache.rotary_dim / 2);
  WithType(cache.dtype, [&](auto element) HWY_ATTR {
    using Element = decltype(element);
    constexpr bool kSplit = kNeox && kSplits<T>;
    const Element* row = static_cast<const Element*>(cache.data) + position * cache.stride;
    Widen<kSplit>(row, to, half, 1.0f);
    Widen<kSplit>(row + half, to + half, half, inverse ? -1.0f : 1.0f);
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ROTARY_ROTARY_INL_H_
