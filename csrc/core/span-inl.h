// SPDX-License-Identifier: Apache-2.0
// Writes rows of numbers that are computed from other rows on the way. Compiled once for each
// target.
//
// The numbers come from a source. source.ReadTwo(i, v0, v1) returns 2 * Lanes(F32()) of them from
// element i on: as LoadSplit would if Source::kSplit is set, in order otherwise. source.ReadTail(i,
// n) returns the first n of Lanes(F32()).
#if defined(VLLM_CORE_SPAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_SPAN_INL_H_
#undef VLLM_CORE_SPAN_INL_H_
#else
#define VLLM_CORE_SPAN_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/split-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// The elements of a row, each transformed by a function.
template <typename T, class F>
struct Elements {
  static constexpr bool kSplit = kSplits<T>;
  const T* x;  // not restrict: the result may be in the same place
  F f;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    LoadSplit(x + i, v0, v1);
    v0 = f(v0);
    v1 = f(v1);
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const { return f(LoadTail(x + i, n)); }
};

template <typename T, class F>
HWY_INLINE Elements<T, F> Mapped(const T* x, F f) {
  return {x, f};
}

// Function objects have scalar members, because vectors of unknown length cannot be members.
struct Times {
  float factor;
  HWY_INLINE VF32 operator()(VF32 v) const { return hn::Mul(v, hn::Set(F32(), factor)); }
};

struct AsItIs {
  HWY_INLINE VF32 operator()(VF32 v) const { return v; }
};

// Stores the first n numbers of a source as T. With `stream`, the stores bypass the caches, and
// hwy::FlushStream() must follow the last of them.
template <typename T, class Source>
HWY_INLINE void WriteSpan(const Source& source, T* to, size_t n, bool stream = false) {
  const size_t lanes = hn::Lanes(F32());
  size_t i = 0;
  if (stream) {
    // Only whole aligned vectors are streamed, none before the first aligned one.
    stream = reinterpret_cast<uintptr_t>(to) % sizeof(T) == 0;
    for (; stream && i < n && !StreamAligned(to + i); ++i)
      StoreTail(source.ReadTail(i, 1), to + i, 1);
  }
  const size_t first = i, whole = (n - i) / (2 * lanes) * (2 * lanes);
  for (i += whole; i < n; i += lanes) {
    const size_t part = HWY_MIN(lanes, n - i);
    StoreTail(source.ReadTail(i, part), to + i, part);
  }
  for (size_t k = first; k < first + whole; k += 2 * lanes) {
    VF32 v0, v1;
    source.ReadTwo(k, v0, v1);
    if constexpr (Source::kSplit) {
      stream ? StreamSplit(v0, v1, to + k) : StoreSplit(v0, v1, to + k);
    } else {
      stream ? StreamTwo(v0, v1, to + k) : StoreTwo(v0, v1, to + k);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_SPAN_INL_H_
