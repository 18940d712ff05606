// SPDX-License-Identifier: Apache-2.0
// Converts rows of floating-point numbers to fp8 with a scale, and back. Compiled once for each
// target.
#if defined(VLLM_CACHE_FP8_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CACHE_FP8_ROWS_INL_H_
#undef VLLM_CACHE_FP8_ROWS_INL_H_
#else
#define VLLM_CACHE_FP8_ROWS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "cache/cache.h"
#include "core/fp8-inl.h"
#include "core/with_type-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// to = from / scale
template <typename T, class F8>
HWY_NOINLINE void Quantize(const T* HWY_RESTRICT from, size_t n, float scale, F8* HWY_RESTRICT to) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 divisor = hn::Set(F32(), scale);
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const VF32 v0 = hn::Div(Load(from + i), divisor), v1 = hn::Div(Load(from + i + lanes), divisor);
    const VF32 v2 = hn::Div(Load(from + i + 2 * lanes), divisor),
               v3 = hn::Div(Load(from + i + 3 * lanes), divisor);
    StoreFour(v0, v1, v2, v3, to + i);
  }
  for (; i + lanes <= n; i += lanes) Store(hn::Div(Load(from + i), divisor), to + i);
  if (i < n) StoreTail(hn::Div(LoadTail(from + i, n - i), divisor), to + i, n - i);
}

// to = from * scale
template <typename T, class F8>
HWY_NOINLINE void Dequantize(const F8* HWY_RESTRICT from, size_t n, float scale,
                             T* HWY_RESTRICT to) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 factor = hn::Set(F32(), scale);
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    VF32 v0, v1;
    LoadTwo(from + i, v0, v1);
    StoreTwo(hn::Mul(v0, factor), hn::Mul(v1, factor), to + i);
  }
  for (; i + lanes <= n; i += lanes) Store(hn::Mul(Load(from + i), factor), to + i);
  if (i < n) StoreTail(hn::Mul(LoadTail(from + i, n - i), factor), to + i, n - i);
}

template <class F8>
void QuantizeTo(const void* from, DType dtype, int64_t first, size_t n, float scale, uint8_t* to) {
  WithType(dtype, [&](auto element) HWY_ATTR {
    Quantize(static_cast<const decltype(element)*>(from) + first, n, scale,
             reinterpret_cast<F8*>(to));
  });
}

template <class F8>
void DequantizeFrom(const uint8_t* from, size_t n, float scale, void* to, DType dtype,
                    int64_t first) {
  WithType(dtype, [&](auto element) HWY_ATTR {
    Dequantize(reinterpret_cast<const F8*>(from), n, scale,
               static_cast<decltype(element)*>(to) + first);
  });
}

// Converts n elements from `from` + `first` to fp8: to = from / scale. `format` is not kSame.
HWY_INLINE void QuantizeRow(const void* from, DType dtype, int64_t first, size_t n, float scale,
                            CacheFormat format, uint8_t* to) {
  const auto quantize = format == CacheFormat::kE4m3 ? &QuantizeTo<E4M3> : &QuantizeTo<E5M2>;
  quantize(from, dtype, first, n, scale, to);
}

// Converts n elements of fp8 to `to` + `first`: to = from * scale.
HWY_INLINE void DequantizeRow(const uint8_t* from, size_t n, float scale, CacheFormat format,
                              void* to, DType dtype, int64_t first) {
  const auto dequantize =
      format == CacheFormat::kE4m3 ? &DequantizeFrom<E4M3> : &DequantizeFrom<E5M2>;
  dequantize(from, n, scale, to, dtype, first);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CACHE_FP8_ROWS_INL_H_
