// SPDX-License-Identifier: Apache-2.0
// Stores that bypass the caches, for results too large to stay there until they are read. Compiled
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

// Returns whether a result of `bytes` bytes should bypass the caches. Its cache lines then need not
// be read first, which saves a third of the traffic of an op that reads as much as it writes, but
// the next reader finds nothing in the caches. 16 MiB is half of the last-level cache that eight
// cores of a server commonly share; the C library's figure also counts the caches of other cores.
HWY_INLINE bool ShouldStream(int64_t bytes) { return bytes >= int64_t{16} << 20; }

// The same for a result of elements of T.
template <typename T>
HWY_INLINE bool ShouldStream(const Rows& out) {
  return ShouldStream(out.count * out.width * static_cast<int64_t>(sizeof(T)));
}

// Returns whether StreamTwo may write to `p`.
template <typename T>
HWY_INLINE bool StreamAligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % (hn::Lanes(F32()) * sizeof(float)) == 0;
}

// Like StoreTwo, but does not read the cache lines of `p` first. hwy::FlushStream() must follow the
// last of them.
template <typename T>
HWY_INLINE void StreamTwo(VF32 v0, VF32 v1, T* HWY_RESTRICT p) {
  if constexpr (sizeof(T) == sizeof(float)) {
    hn::Stream(v0, F32(), p);
    hn::Stream(v1, F32(), p + hn::Lanes(F32()));
  } else if constexpr (hwy::IsSame<T, hwy::bfloat16_t>()) {
    const hn::Repartition<T, F32> dt;
    hn::Stream(hn::OrderedDemote2To(dt, v0, v1), dt, p);
  } else {
    // Stored as one whole vector, because Highway streams no less than that, even if half of one is
    // requested.
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
