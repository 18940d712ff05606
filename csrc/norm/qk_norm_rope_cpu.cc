// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>

#include "norm/qk_norm_rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm/qk_norm_rope_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "norm/norm-inl.h"
#include "rotary/rotary-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// to = head * factor * weight
template <typename T>
HWY_INLINE void NormalizeHead(const T* HWY_RESTRICT head, const T* HWY_RESTRICT weight, float factor, float* HWY_RESTRICT to, size_t size) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 factors = hn::Set(F32(), factor);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) Store(hn::Mul(hn::Mul(Load(head + i), factors), Load(weight + i)), to + i);
  if (i < size) StoreTail(hn::Mul(hn::Mul(LoadTail(head + i, size - i), factors), LoadTail(weight + i, size - i)), to + i, size - i);
}

template <typename T>
HWY_INLINE void Narrow(const float* HWY_RESTRICT from, T* HWY_RESTRICT to, size_t size) {
  const size_t lanes = hn::Lanes(F32());
  size_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) StoreTwo(Load(from + i), Load(from + i + lanes), to + i);
  for (; i < size; i += lanes) {
    const size_t n = HWY_MIN(lanes, size - i);
    StoreTail(LoadTail(from + i, n), to + i, n);
  }
}

// Query and key heads [begin, end), counted through all tokens. `scratch` holds rotary_dim + head_size floats: the angles of a token, and a
// head between normalisation and rounding.
template <typename T>
HWY_NOINLINE void NormRopeHeads(const Rows& qkv, const Rows& positions, const QkNormRope& how, int64_t begin, int64_t end, float* scratch) {
  const int64_t heads = how.query_heads + how.key_heads;
  const size_t size = static_cast<size_t>(how.head_size);
  const size_t half = static_cast<size_t>(how.cache.rotary_dim / 2);
  float* HWY_RESTRICT angles = scratch;
  float* HWY_RESTRICT normed = scratch + 2 * half;
  int64_t angles_of = -1;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t token = index / heads, head = index % heads;
    if (token != angles_of) {
      WidenRow(how.cache, *positions.Row<const int64_t>(token), false, angles);
      angles_of = token;
    }
    T* x = qkv.Row<T>(token) + head * how.head_size;
    const T* weight = static_cast<const T*>(head < how.query_heads ? how.query_weight : how.key_weight);
    NormalizeHead(x, weight, NormFactor(x, size, how.epsilon), normed, size);
    if (how.neox) {
      RotateHalves(normed, angles, angles + half, half);
    } else {
      RotatePairs(normed, angles, angles + half, half);
    }
    Narrow(normed, x, size);
  }
}

void NormRopeRange(const Rows& qkv, const Rows& positions, const QkNormRope& how, int64_t begin, int64_t end, float* scratch) {
  switch (qkv.dtype) {
    case DType::kFloat32:
      return NormRopeHeads<float>(qkv, positions, how, begin, end, scratch);
    case DType::kBFloat16:
      return NormRopeHeads<hwy::bfloat16_t>(qkv, positions, how, begin, end, scratch);
    case DType::kFloat16:
      return NormRopeHeads<hwy::float16_t>(qkv, positions, how, begin, end, scratch);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <vector>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(NormRopeRange);

void FusedQkNormRope(const Rows& qkv, const Rows& positions, const QkNormRope& how) {
  CheckPositions("fused_qk_norm_rope", "position_ids", positions, how.cache);
  auto& function = VLLM_CPU_DISPATCH(NormRopeRange);
  ParallelFor(qkv.count * (how.query_heads + how.key_heads), how.head_size, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(how.cache.rotary_dim + how.head_size));
    function(qkv, positions, how, begin, end, scratch.data());
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
