// SPDX-License-Identifier: Apache-2.0
// Copies the heads of queries and outputs to and from the rows of a tile. Compiled once for each
// target.
#if defined(VLLM_ATTENTION_HEAD_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ATTENTION_HEAD_ROWS_INL_H_
#undef VLLM_ATTENTION_HEAD_ROWS_INL_H_
#else
#define VLLM_ATTENTION_HEAD_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "hwy/highway.h"

#include "attention/tile.h"
#include "core/fp8-inl.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Copies n elements of `from`, converted to A.
template <typename A, typename T>
HWY_INLINE void Convert(const T* HWY_RESTRICT from, A* HWY_RESTRICT to, size_t n) {
  if constexpr (hwy::IsSame<A, T>()) {
    std::copy(from, from + n, to);
  } else {
    const size_t lanes = hn::Lanes(F32());
    size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      const VF32 v0 = Load(from + i), v1 = Load(from + i + lanes);
      StoreTwo(v0, v1, to + i);
    }
    for (; i < n; i += lanes)
      StoreTail(LoadTail(from + i, HWY_MIN(lanes, n - i)), to + i, HWY_MIN(lanes, n - i));
  }
}

// Returns a tile's memory as elements of A.
template <typename A>
HWY_INLINE A* As(float* memory) {
  return reinterpret_cast<A*>(memory);
}

// Returns the tile's weights, which are of the type A that the products multiply.
template <typename A, class AnyTile>
HWY_INLINE A* GetWeights(const AnyTile& tile) {
  if constexpr (hwy::IsSame<A, float>()) return tile.scores;
  return As<A>(tile.weights);
}

// Copies the queries of a tile's rows, converted to A: n elements of row r, which begin at head(r),
// to `to` + r * stride.
template <typename A, class AnyTile, class HeadOfRow>
HWY_INLINE void LoadQueryRows(const AnyTile& tile, size_t n, size_t stride, A* HWY_RESTRICT to,
                              const HeadOfRow& head) {
  for (size_t row = 0; row < tile.rows; ++row) Convert(head(row), to + row * stride, n);
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
