// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>

#include "rotary/rotary.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "rotary/rotary_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// n elements of `from`, as float32, times `sign`.
template <typename T>
void Widen(const T* HWY_RESTRICT from, float* HWY_RESTRICT to, size_t n, float sign) {
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

// Loads 2 * Lanes(F32()) elements and parts the even ones from the odd ones.
template <typename T>
HWY_INLINE void LoadPairs(const T* HWY_RESTRICT p, VF32& even, VF32& odd) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 low = Load(p), high = Load(p + lanes);
  even = hn::ConcatEven(F32(), high, low);
  odd = hn::ConcatOdd(F32(), high, low);
}

template <typename T>
HWY_INLINE void StorePairs(VF32 even, VF32 odd, T* HWY_RESTRICT p) {
  const size_t lanes = hn::Lanes(F32());
  Store(hn::InterleaveWholeLower(F32(), even, odd), p);
  Store(hn::InterleaveWholeUpper(F32(), even, odd), p + lanes);
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

template <typename T, bool kNeox>
HWY_NOINLINE void RotateToken(const Heads& heads, int64_t token, const float* cosines, const float* sines, size_t half, int64_t offset) {
  T* head = heads.tokens.Row<T>(token) + offset;
  for (int64_t h = 0; h < heads.heads; ++h, head += heads.head_stride) {
    if constexpr (kNeox) {
      RotateHalves(head, cosines, sines, half);
    } else {
      RotatePairs(head, cosines, sines, half);
    }
  }
}

template <bool kNeox>
void RotateTokenOf(const Heads& heads, int64_t token, const float* cosines, const float* sines, size_t half, int64_t offset) {
  switch (heads.tokens.dtype) {
    case DType::kFloat32:
      return RotateToken<float, kNeox>(heads, token, cosines, sines, half, offset);
    case DType::kBFloat16:
      return RotateToken<hwy::bfloat16_t, kNeox>(heads, token, cosines, sines, half, offset);
    case DType::kFloat16:
      return RotateToken<hwy::float16_t, kNeox>(heads, token, cosines, sines, half, offset);
  }
}

// Row `position` of the cache as float32: cosines, then sines with their sign.
void WidenRow(const RotaryCache& cache, int64_t position, bool inverse, float* to) {
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

// Tokens [begin, end). `angles` is scratch memory for rotary_dim floats.
void RotateRange(const Rows& positions, const Heads& query, const Heads* key, const RotaryCache& cache, bool neox, int64_t offset,
                 bool inverse, int64_t begin, int64_t end, float* angles) {
  const size_t half = static_cast<size_t>(cache.rotary_dim / 2);
  const auto rotate = neox ? &RotateTokenOf<true> : &RotateTokenOf<false>;
  for (int64_t token = begin; token < end; ++token) {
    WidenRow(cache, *positions.Row<const int64_t>(token), inverse, angles);
    rotate(query, token, angles, angles + half, half, offset);
    if (key != nullptr) rotate(*key, token, angles, angles + half, half, offset);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <stdexcept>
#include <string>
#include <vector>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(RotateRange);

void RotaryEmbedding(const Rows& positions, const Heads& query, const Heads* key, const RotaryCache& cache, bool neox, int64_t offset,
                     bool inverse) {
  for (int64_t token = 0; token < positions.count; ++token) {
    const int64_t position = *positions.Row<const int64_t>(token);
    if (position < 0 || position >= cache.positions) {
      throw std::runtime_error("rotary_embedding: positions holds " + std::to_string(position) + " for token " + std::to_string(token) +
                               ", expected 0 <= position < " + std::to_string(cache.positions) + " (rows of cos_sin_cache)");
    }
  }
  auto& function = VLLM_CPU_DISPATCH(RotateRange);
  const int64_t elements = (query.heads + (key == nullptr ? 0 : key->heads)) * cache.rotary_dim;
  ParallelFor(positions.count, elements, [&](int64_t begin, int64_t end) {
    std::vector<float> angles(static_cast<size_t>(cache.rotary_dim));
    function(positions, query, key, cache, neox, offset, inverse, begin, end, angles.data());
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
