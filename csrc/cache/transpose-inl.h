// SPDX-License-Identifier: Apache-2.0
// Transposes vectors of tokens, so that the same element of adjacent tokens is adjacent. Compiled
// once for each target.
#if defined(VLLM_CACHE_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CACHE_TRANSPOSE_INL_H_
#undef VLLM_CACHE_TRANSPOSE_INL_H_
#else
#define VLLM_CACHE_TRANSPOSE_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The number of tokens that are transposed together: the lanes of 16 bytes.
template <typename Bits>
inline constexpr int64_t kTile = 16 / sizeof(Bits);

#if !HWY_HAVE_SCALABLE  // vectors of unknown length cannot be in an array
// to[d * stride + t] = from[t][offset + d] for a square of kTile tokens and elements.
template <typename Bits>
HWY_INLINE void TransposeTile(const Bits* const* from, int64_t offset, Bits* HWY_RESTRICT to,
                              int64_t stride) {
  constexpr size_t kLanes = kTile<Bits>;
  const hn::FixedTag<Bits, kLanes> d;
  hn::Vec<decltype(d)> a[kLanes], b[kLanes];
  for (size_t t = 0; t < kLanes; ++t) a[t] = hn::LoadU(d, from[t] + offset);
  // Interleaving the two halves moves the highest bit of the token's index to the bottom of the
  // element's index. After as many steps as there are bits, tokens and elements have changed
  // places.
  for (size_t step = 1; step < kLanes; step *= 2) {
    for (size_t i = 0; i < kLanes / 2; ++i) {
      b[2 * i] = hn::InterleaveLower(d, a[i], a[i + kLanes / 2]);
      b[2 * i + 1] = hn::InterleaveUpper(d, a[i], a[i + kLanes / 2]);
    }
    for (size_t i = 0; i < kLanes; ++i) a[i] = b[i];
  }
  for (size_t i = 0; i < kLanes; ++i) hn::StoreU(a[i], d, to + static_cast<int64_t>(i) * stride);
}
#endif

// to[d * stride + columns[t]] = from[t][d] for `tokens` <= kTile tokens. The columns ascend and are
// less than kTile.
template <typename Bits>
HWY_INLINE void Transpose(const Bits* const* from, const int64_t* columns, int64_t tokens,
                          int64_t width, Bits* HWY_RESTRICT to, int64_t stride) {
  int64_t first = 0;
#if !HWY_HAVE_SCALABLE
  if (tokens == kTile<Bits>) {
    for (; first + kTile<Bits> <= width; first += kTile<Bits>)
      TransposeTile(from, first, to + first * stride, stride);
  }
#endif
  for (int64_t t = 0; t < tokens; ++t) {
    const Bits* HWY_RESTRICT row = from[t];
    Bits* HWY_RESTRICT column = to + columns[t];
    for (int64_t i = first; i < width; ++i) column[i * stride] = row[i];
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CACHE_TRANSPOSE_INL_H_
