// SPDX-License-Identifier: Apache-2.0
// Rotates heads in GPU kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/gpu/row_teams.h"
#include "rotary/rotary.h"

namespace vllm::gpu {

// The number of pairs that a thread rotates at once: those of two packs, which are half a head
// apart (neox), or those of one pack.
template <typename T, bool kNeox, bool kAligned>
inline constexpr int kPairs = kAligned ? (kNeox ? kPerLoad<T> : kPerLoad<T> / 2) : 1;

// Returns whether all heads are aligned, so that a thread can rotate whole packs of pairs.
template <typename T>
bool HasWholePairs(const RotaryCache& cache, bool neox) {
  const int64_t pairs = neox ? kPairs<T, true, true> : kPairs<T, false, true>;
  const int64_t size = GetSize(cache.dtype);
  const int64_t bytes = std::min<int64_t>(16, pairs * size);
  return cache.rotary_dim / 2 % pairs == 0 && IsAligned(cache.data, bytes) &&
         cache.stride * size % bytes == 0;
}

// Sets `position` to the position of a token. Returns whether the cache has it.
__device__ __forceinline__ bool FindPosition(const Rows& positions, int64_t token,
                                             const RotaryCache& cache, int64_t& position) {
  position = *GetRow<const int64_t>(positions, token);
  return position >= 0 && position < cache.positions;
}

// The cosines and sines of kCount adjacent pairs.
template <int kCount>
struct Angles {
  float cosines[kCount], sines[kCount];

  // Loads those of the pairs from i on.
  __device__ __forceinline__ void Load(const RotaryCache& cache, int64_t position, int64_t i) {
    if (cache.dtype == DType::kFloat32) {
      LoadFrom(static_cast<const float*>(cache.data), cache, position, i);
    } else if (cache.dtype == DType::kBFloat16) {
      LoadFrom(static_cast<const Bf16*>(cache.data), cache, position, i);
    } else {
      LoadFrom(static_cast<const Fp16*>(cache.data), cache, position, i);
    }
  }

  __device__ __forceinline__ void Invert() {
#pragma unroll
    for (int j = 0; j < kCount; ++j) sines[j] = -sines[j];
  }

  __device__ __forceinline__ void Rotate(float (&x)[kCount], float (&y)[kCount]) const {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float rotated = fmaf(-y[j], sines[j], x[j] * cosines[j]);
      y[j] = fmaf(x[j], sines[j], y[j] * cosines[j]);
      x[j] = rotated;
    }
  }

 private:
  template <typename C>
  __device__ __forceinline__ void LoadFrom(const C* data, const RotaryCache& cache,
                                           int64_t position, int64_t i) {
    const C* row = data + position * cache.stride + i;
    LoadFloats(row, cosines);
    LoadFloats(row + cache.rotary_dim / 2, sines);
  }
  template <typename C>
  static __device__ __forceinline__ void LoadFloats(const C* from, float (&to)[kCount]) {
    constexpr int kLoad = kCount < kPerLoad<C> ? kCount : kPerLoad<C>;
#pragma unroll
    for (int j = 0; j < kCount; j += kLoad) {
      const Pack<C, kLoad> items = LoadPack<kLoad>(from + j);
#pragma unroll
      for (int k = 0; k < kLoad; ++k) to[j + k] = ToFloat(items.items[k]);
    }
  }
};

// The elements of kCount adjacent pairs of a head.
template <typename T, bool kNeox, bool kAligned>
struct PairsOf {
  static constexpr int kCount = kPairs<T, kNeox, kAligned>;
  static constexpr int kLoad = kAligned ? kPerLoad<T> : 1;

  // Two loads or one: of whole packs, or of one element each.
  Pack<T, kLoad> first, second;

  // The offsets at which they begin, for pairs from i on; there are `half` pairs in all.
  static __device__ __forceinline__ int64_t GetFirstOffset(int64_t i) { return kNeox ? i : 2 * i; }
  static __device__ __forceinline__ int64_t GetSecondOffset(int64_t i, int64_t half) {
    return kNeox ? i + half : 2 * i + 1;
  }
  static constexpr bool kTwo = kNeox || !kAligned;

  __device__ __forceinline__ void Load(const T* head, int64_t i, int64_t half) {
    first = LoadPack<kLoad>(head + GetFirstOffset(i));
    if constexpr (kTwo) second = LoadPack<kLoad>(head + GetSecondOffset(i, half));
  }
  __device__ __forceinline__ void Get(float (&x)[kCount], float (&y)[kCount]) const {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      x[j] = ToFloat(kTwo ? first.items[j] : first.items[2 * j]);
      y[j] = ToFloat(kTwo ? second.items[j] : first.items[2 * j + 1]);
    }
  }
  static __device__ __forceinline__ void Store(T* head, int64_t i, int64_t half,
                                               const float (&x)[kCount], const float (&y)[kCount]) {
    if constexpr (kTwo) {
      StorePack(head + GetFirstOffset(i), FromFloats<T>(x));
      StorePack(head + GetSecondOffset(i, half), FromFloats<T>(y));
    } else {
      float both[2 * kCount];
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        both[2 * j] = x[j];
        both[2 * j + 1] = y[j];
      }
      StorePack(head + GetFirstOffset(i), FromFloats<T>(both));
    }
  }
};

// Returns how many of `count` items a block processes at once, at most `most`, so that all
// iterations have about the same number.
inline int64_t ChooseEvenShare(int64_t count, int64_t most) {
  if (count <= most) return std::max<int64_t>(count, 1);
  const int64_t times = (count + most - 1) / most;
  return (count + times - 1) / times;
}

}  // namespace vllm::gpu
