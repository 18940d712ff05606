// SPDX-License-Identifier: Apache-2.0
// Copies the heads of queries and outputs to and from the rows of a tile. Compiled once for each
// target.
#if defined(VLLM_ATTENTION_HEAD_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ATTENTION_HEAD_ROWS_INL_H_
#undef VLLM_ATTENTION_HEAD_ROWS_INL_H_
#else
#define VLLM_ATTENTION_HEAD_ROWS_INL_H_
#endif

#include <cstddef>

#include "hwy/highway.h"

#include "attention/tile.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// to[i] = from[i] * scale as float32, for n elements.
template <typename T>
HWY_INLINE void LoadScaled(const T* HWY_RESTRICT from, float scale, float* HWY_RESTRICT to,
                           size_t n) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 factor = hn::Set(F32(), scale);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) Store(hn::Mul(Load(from + i), factor), to + i);
  if (i < n) StoreTail(hn::Mul(LoadTail(from + i, n - i), factor), to + i, n - i);
}

// Copies the queries of a tile's rows, times `scale`, as float32: n elements of row r, which begin
// at head(r), to tile.query + r * stride.
template <class AnyTile, class HeadOfRow>
HWY_INLINE void LoadQueryRows(const AnyTile& tile, size_t n, size_t stride, float scale,
                              const HeadOfRow& head) {
  for (size_t row = 0; row < tile.rows; ++row)
    LoadScaled(head(row), scale, tile.query + row * stride, n);
}

// Writes the output of a tile's rows: the n sums of row r, divided by the softmax's denominator and
// multiplied by `scale`, to head(r).
template <typename T, class AnyTile, class HeadOfRow>
HWY_INLINE void StoreOutputRows(const AnyTile& tile, size_t n, float scale, const HeadOfRow& head) {
  const size_t lanes = hn::Lanes(F32());
  for (size_t row = 0; row < tile.rows; ++row) {
    const float sum = tile.states[row].sum;
    const VF32 factor = hn::Set(F32(), sum > 0.0f ? scale / sum : sum);
    const float* from = tile.sums + row * tile.sum_stride;
    T* to = head(row);
    size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      StoreTwo(hn::Mul(Load(from + i), factor), hn::Mul(Load(from + i + lanes), factor), to + i);
    }
    for (; i < n; i += lanes) {
      const size_t part = HWY_MIN(lanes, n - i);
      StoreTail(hn::Mul(LoadTail(from + i, part), factor), to + i, part);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ATTENTION_HEAD_ROWS_INL_H_
