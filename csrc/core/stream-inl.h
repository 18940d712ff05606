// SPDX-License-Identifier: Apache-2.0
// Stores past the caches, for results too large to be found there by whoever reads them. Compiled
// once for each target.
#if defined(VLLM_CORE_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_STREAM_INL_H_
#undef VLLM_CORE_STREAM_INL_H_
#else
#define VLLM_CORE_STREAM_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include "core/rows.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Whether a result of `bytes` is worth writing past the caches. The lines that it is written to
// need not be read first, which is a third of the traffic of an op that reads as much as it writes;
// but whoever reads it next finds nothing of it in the caches. 16 MiB is half of the last cache
// that cores of servers commonly share among eight; the C library's figure for it counts those of
// other cores, too.
HWY_INLINE bool WorthStreaming(int64_t bytes) { return bytes >= int64_t{16} << 20; }

// The same of a result of elements of T.
template <typename T>
HWY_INLINE bool WorthStreaming(const Rows& out) {
  return WorthStreaming(out.count * out.width * static_cast<int64_t>(sizeof(T)));
}

// Whether StreamTwo may write to `p`.
template <typename T>
HWY_INLINE bool StreamAligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % (hn::Lanes(F32()) * sizeof(float)) == 0;
}

// As StoreTwo, without reading the lines of `p` into the caches first; hwy::FlushStream() must
// follow the last of them.
template <typename T>
HWY_INLINE void StreamTwo(VF32 v0, VF32 v1, T* HWY_RESTRICT p) {
  if constexpr (sizeof(T) == sizeof(float)) {
    hn::Stream(v0, F32(), p);
    hn::Stream(v1, F32(), p + hn::Lanes(F32()));
  } else if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    const hn::Repartition<T, F32> dt;
    hn::Stream(hn::OrderedDemote2To(dt, v0, v1), dt, p);
  } else {
    // As one whole vector: Highway streams no less than that, also where half of one is asked for.
    const hn::Repartition<T, F32> dt;
    const hn::Half<decltype(dt)> half;
    hn::Stream(hn::Combine(dt, hn::DemoteTo(half, v1), hn::DemoteTo(half, v0)), dt, p);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_STREAM_INL_H_
