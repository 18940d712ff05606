// SPDX-License-Identifier: Apache-2.0
// The mathematics of rotary position embedding, for kernels that rotate and do more. Compiled once for each target.
#if defined(VLLM_ROTARY_ROTARY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ROTARY_ROTARY_INL_H_
#undef VLLM_ROTARY_ROTARY_INL_H_
#else
#define VLLM_ROTARY_ROTARY_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/pairs-inl.h"
#include "rotary/rotary.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// n elements of `from`, as float32, times `sign`.
template <typename T>
HWY_INLINE void Widen(const T* HWY_RESTRICT from, float* HWY_RESTRICT to, size_t n, float sign) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 factor = hn::Set(F32(), sign);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) Store(hn::Mul(Load(from + i), factor), to + i);
  if (i < n) StoreTail(hn::Mul(LoadTail(from + i, n - i), factor), to + i, n - i);
}

HWY_INLINE void Rotate(VF32& x, VF32& y, VF32 cosine, VF32 sine) {
  const VF32 rotated = hn::NegMulAdd(y, sine, hn::Mul(x, cosine));
  y = hn::MulAdd(x, sine, hn::Mul(y, cosine));
  x = rotated;
}

// Pairs (i, i + half) of one head.
template <typename T>
HWY_INLINE void RotateHalves(T* HWY_RESTRICT head, const float* HWY_RESTRICT cosines, const float* HWY_RESTRICT sines, size_t half) {
  const size_t lanes = hn::Lanes(F32());
  T* HWY_RESTRICT upper = head + half;
  size_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    VF32 x = Load(head + i), y = Load(upper + i);
    Rotate(x, y, Load(cosines + i), Load(sines + i));
    Store(x, head + i);
    Store(y, upper + i);
  }
  if (i < half) {
    const size_t n = half - i;
    VF32 x = LoadTail(head + i, n), y = LoadTail(upper + i, n);
    Rotate(x, y, LoadTail(cosines + i, n), LoadTail(sines + i, n));
    StoreTail(x, head + i, n);
    StoreTail(y, upper + i, n);
  }
}

// Pairs (2i, 2i + 1) of one head.
template <typename T>
HWY_INLINE void RotatePairs(T* HWY_RESTRICT head, const float* HWY_RESTRICT cosines, const float* HWY_RESTRICT sines, size_t half) {
  const size_t lanes = hn::Lanes(F32());
  VF32 x, y;
  size_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    LoadPairs(head + 2 * i, x, y);
    Rotate(x, y, Load(cosines + i), Load(sines + i));
    StorePairs(x, y, head + 2 * i);
  }
  if (i < half) {
    // Through a buffer of whole vectors: the tail of interleaved pairs is not the tail of one vector.
    const size_t n = half - i;
    HWY_ALIGN T buffer[2 * hn::MaxLanes(F32())] = {};
    for (size_t j = 0; j < 2 * n; ++j) buffer[j] = head[2 * i + j];
    LoadPairs(buffer, x, y);
    Rotate(x, y, LoadTail(cosines + i, n), LoadTail(sines + i, n));
    StorePairs(x, y, buffer);
    for (size_t j = 0; j < 2 * n; ++j) head[2 * i + j] = buffer[j];
  }
}

// Row `position` of the cache as float32: cosines, then sines with their sign.
HWY_INLINE void WidenRow(const RotaryCache& cache, int64_t position, bool inverse, float* to) {
  const size_t half = static_cast<size_t>(cache.rotary_dim / 2);
  const int64_t start = position * cache.stride;
  const float sign = inverse ? -1.0f : 1.0f;
  switch (cache.dtype) {
    case DType::kFloat32: {
      const float* row = static_cast<const float*>(cache.data) + start;
      Widen(row, to, half, 1.0f);
      return Widen(row + half, to + half, half, sign);
    }
    case DType::kBFloat16: {
      const hwy::bfloat16_t* row = static_cast<const hwy::bfloat16_t*>(cache.data) + start;
      Widen(row, to, half, 1.0f);
      return Widen(row + half, to + half, half, sign);
    }
    case DType::kFloat16: {
      const hwy::float16_t* row = static_cast<const hwy::float16_t*>(cache.data) + start;
      Widen(row, to, half, 1.0f);
      return Widen(row + half, to + half, half, sign);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ROTARY_ROTARY_INL_H_
