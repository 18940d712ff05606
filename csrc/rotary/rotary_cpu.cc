// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>

#include "rotary/rotary.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "rotary/rotary_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "rotary/rotary-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

template <typename T, bool kNeox>
HWY_INLINE void RotateToken(const Heads& heads, int64_t token, const float* cosines,
                            const float* sines, size_t half, int64_t offset) {
  T* head = heads.tokens.Row<T>(token) + offset;
  for (int64_t h = 0; h < heads.heads; ++h, head += heads.head_stride) {
    RotateHead<T, kNeox>(Mapped(head, AsItIs()), head, cosines, sines, half);
  }
}

// Rotates the heads of tokens [begin, end). `angles` is scratch memory for rotary_dim floats.
template <typename T, bool kNeox>
HWY_NOINLINE void RotateTokens(const Rows& positions, const Heads& query, const Heads* key,
                               const RotaryCache& cache, int64_t offset, bool inverse,
                               int64_t begin, int64_t end, float* angles) {
  const size_t half = static_cast<size_t>(cache.rotary_dim / 2);
  for (int64_t token = begin; token < end; ++token) {
    WidenRow<T, kNeox>(cache, *positions.Row<const int64_t>(token), inverse, angles);
    RotateToken<T, kNeox>(query, token, angles, angles + half, half, offset);
    if (key != nullptr) RotateToken<T, kNeox>(*key, token, angles, angles + half, half, offset);
  }
}

void RotateRange(const Rows& positions, const Heads& query, const Heads* key,
                 const RotaryCache& cache, bool neox, int64_t offset, bool inverse, int64_t begin,
                 int64_t end, float* angles) {
  WithType(query.tokens.dtype, [&](auto element) HWY_ATTR {
    if (neox) {
      RotateTokens<decltype(element), true>(positions, query, key, cache, offset, inverse, begin,
                                            end, angles);
    } else {
      RotateTokens<decltype(element), false>(positions, query, key, cache, offset, inverse, begin,
                                             end, angles);
    }
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <stdexcept>
#include <string>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(RotateRange);

void CheckPositions(const char* op, const char* name, const Rows& positions,
                    const RotaryCache& cache) {
  for (int64_t token = 0; token < positions.count; ++token) {
    const int64_t position = *positions.Row<const int64_t>(token);
    if (position < 0 || position >= cache.positions) {
      throw std::runtime_error(std::string(op) + ": " + name + " holds " +
                               std::to_string(position) + " for token " + std::to_string(token) +
                               ", expected 0 <= position < " + std::to_string(cache.positions) +
                               " (rows of cos_sin_cache)");
    }
  }
}

void ApplyRotaryEmbedding(const Rows& positions, const Heads& query, const Heads* key,
                          const RotaryCache& cache, bool neox, int64_t offset, bool inverse) {
  CheckPositions("rotary_embedding", "positions", positions, cache);
  auto& function = VLLM_CPU_DISPATCH(RotateRange);
  const int64_t elements = (query.heads + (key == nullptr ? 0 : key->heads)) * cache.rotary_dim;
  ParallelFor(positions.count, elements, [&](int64_t begin, int64_t end) {
    // At least one element, because hwy reports an empty allocation as a failure.
    const auto angles =
        hwy::AllocateAligned<float>(static_cast<size_t>(std::max<int64_t>(1, cache.rotary_dim)));
    function(positions, query, key, cache, neox, offset, inverse, begin, end, angles.get());
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
