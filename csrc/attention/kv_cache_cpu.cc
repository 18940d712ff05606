// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstddef>
#include <cstdint>

#include "attention/kv_cache.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/kv_cache_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/fp8-inl.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Tokens that lie behind each other in one panel of keys.
struct Run {
  int64_t token;  // the first one
  int64_t count;
  int64_t slot;  // of the first one
};

// The run of tokens from `token` on, at most to `end`. Empty for a token without a slot.
HWY_INLINE Run NextRun(const int64_t* slots, int64_t stride, int64_t token, int64_t end) {
  const int64_t slot = slots[token * stride];
  if (slot < 0) return {token, 0, slot};
  const int64_t room = CachePages::kPanel - slot % CachePages::kPanel;
  int64_t count = 1;
  while (count < room && token + count < end && slots[(token + count) * stride] == slot + count) ++count;
  return {token, count, slot};
}

// kCount tokens' keys into their columns of a panel.
template <int64_t kCount, typename T>
HWY_INLINE void PutKeys(const T* HWY_RESTRICT from, int64_t stride, int64_t count, T* HWY_RESTRICT panel, int64_t head_size) {
  for (int64_t e = 0; e < head_size; ++e) {
    for (int64_t t = 0; t < (kCount == 0 ? count : kCount); ++t) panel[e * CachePages::kPanel + t] = from[t * stride + e];
  }
}

template <typename T>
HWY_INLINE void PutKeyRun(const T* HWY_RESTRICT from, int64_t stride, int64_t count, T* HWY_RESTRICT panel, int64_t head_size) {
  switch (count) {
    case 1:
      return PutKeys<1>(from, stride, count, panel, head_size);
    case CachePages::kPanel:
      return PutKeys<CachePages::kPanel>(from, stride, count, panel, head_size);
    default:
      return PutKeys<0>(from, stride, count, panel, head_size);
  }
}

// One token's value into its rows of the page's panels.
template <typename T>
HWY_INLINE void PutValue(const T* HWY_RESTRICT from, T* HWY_RESTRICT page, int64_t row, int64_t block_size, int64_t head_size) {
  int64_t e = 0;
  for (; e + CachePages::kPanel <= head_size; e += CachePages::kPanel) {
    T* HWY_RESTRICT to = page + e * block_size + row * CachePages::kPanel;
    for (int64_t i = 0; i < CachePages::kPanel; ++i) to[i] = from[e + i];
  }
  const int64_t width = head_size - e;
  for (int64_t i = 0; i < width; ++i) page[e * block_size + row * width + i] = from[e + i];
}

// Tokens of a size of elements that are copied as they are.
template <typename T>
HWY_NOINLINE void CopyTokens(const NewTokens& key, const NewTokens& value, const CachePages& keys, const CachePages& values,
                             const int64_t* slots, int64_t slot_stride, int64_t begin, int64_t end) {
  const int64_t size = keys.block_size, head_size = keys.head_size;
  for (int64_t token = begin; token < end;) {
    const Run run = NextRun(slots, slot_stride, token, end);
    token += HWY_MAX(run.count, int64_t{1});
    if (run.count == 0) continue;
    const int64_t block = run.slot / size, row = run.slot % size;
    for (int64_t head = 0; head < keys.heads; ++head) {
      T* HWY_RESTRICT panel = keys.Page<T>(block, head) + row / CachePages::kPanel * head_size * CachePages::kPanel;
      const T* from = static_cast<const T*>(key.data) + run.token * key.token_stride + head * key.head_stride;
      PutKeyRun(from, key.token_stride, run.count, panel + row % CachePages::kPanel, head_size);
      T* page = values.Page<T>(block, head);
      from = static_cast<const T*>(value.data) + run.token * value.token_stride + head * value.head_stride;
      for (int64_t i = 0; i < run.count; ++i) PutValue(from + i * value.token_stride, page, row + i, size, head_size);
    }
  }
}

// n elements times `factor`, as codes of F8.
template <typename F8, typename T>
HWY_INLINE void Encode(const T* HWY_RESTRICT from, size_t n, float factor, F8* HWY_RESTRICT to) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 v_factor = hn::Set(F32(), factor);
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    StoreFour(hn::Mul(Load(from + i), v_factor), hn::Mul(Load(from + i + lanes), v_factor), hn::Mul(Load(from + i + 2 * lanes), v_factor),
              hn::Mul(Load(from + i + 3 * lanes), v_factor), to + i);
  }
  for (; i < n; i += lanes) {
    const size_t rest = HWY_MIN(lanes, n - i);
    StoreTail(hn::Mul(LoadTail(from + i, rest), v_factor), to + i, rest);
  }
}

// Converts a run of tokens of one head at a time, then copies the codes.
template <typename F8, typename T>
HWY_NOINLINE void EncodeTokens(const NewTokens& key, const NewTokens& value, const CachePages& keys, const CachePages& values,
                               const int64_t* slots, int64_t slot_stride, float key_factor, float value_factor, int64_t begin, int64_t end,
                               F8* HWY_RESTRICT codes) {
  const int64_t size = keys.block_size, width = keys.head_size;
  const auto encode = [&](const NewTokens& tokens, const Run& run, int64_t head, float factor) {
    const T* from = static_cast<const T*>(tokens.data) + run.token * tokens.token_stride + head * tokens.head_stride;
    for (int64_t i = 0; i < run.count; ++i) Encode(from + i * tokens.token_stride, static_cast<size_t>(width), factor, codes + i * width);
  };
  for (int64_t token = begin; token < end;) {
    const Run run = NextRun(slots, slot_stride, token, end);
    token += HWY_MAX(run.count, int64_t{1});
    if (run.count == 0) continue;
    const int64_t block = run.slot / size, row = run.slot % size;
    for (int64_t head = 0; head < keys.heads; ++head) {
      encode(key, run, head, key_factor);
      F8* panel = keys.Page<F8>(block, head) + row / CachePages::kPanel * width * CachePages::kPanel + row % CachePages::kPanel;
      PutKeyRun<F8>(codes, width, run.count, panel, width);
      encode(value, run, head, value_factor);
      for (int64_t i = 0; i < run.count; ++i) PutValue<F8>(codes + i * width, values.Page<F8>(block, head), row + i, size, width);
    }
  }
}

template <typename F8>
void EncodeRange(const NewTokens& key, const NewTokens& value, const CachePages& keys, const CachePages& values, const int64_t* slots,
                 int64_t slot_stride, float key_factor, float value_factor, int64_t begin, int64_t end, void* scratch) {
  F8* codes = static_cast<F8*>(scratch);
  switch (key.dtype) {
    case DType::kFloat32:
      return EncodeTokens<F8, float>(key, value, keys, values, slots, slot_stride, key_factor, value_factor, begin, end, codes);
    case DType::kBFloat16:
      return EncodeTokens<F8, hwy::bfloat16_t>(key, value, keys, values, slots, slot_stride, key_factor, value_factor, begin, end, codes);
    case DType::kFloat16:
      return EncodeTokens<F8, hwy::float16_t>(key, value, keys, values, slots, slot_stride, key_factor, value_factor, begin, end, codes);
  }
}

// Tokens [begin, end). `scratch` is memory for kPanel * head_size bytes.
void WriteRange(const NewTokens& key, const NewTokens& value, const CachePages& keys, const CachePages& values, const int64_t* slots,
                int64_t slot_stride, float key_factor, float value_factor, int64_t begin, int64_t end, void* scratch) {
  switch (keys.dtype) {
    case CacheDType::kFloat32:
      return CopyTokens<uint32_t>(key, value, keys, values, slots, slot_stride, begin, end);
    case CacheDType::kBFloat16:
    case CacheDType::kFloat16:
      return CopyTokens<uint16_t>(key, value, keys, values, slots, slot_stride, begin, end);
    case CacheDType::kFloat8E4M3:
      return EncodeRange<E4M3>(key, value, keys, values, slots, slot_stride, key_factor, value_factor, begin, end, scratch);
    case CacheDType::kFloat8E5M2:
      return EncodeRange<E5M2>(key, value, keys, values, slots, slot_stride, key_factor, value_factor, begin, end, scratch);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <stdexcept>
#include <string>
#include <vector>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(WriteRange);

void WriteKvCache(const NewTokens& key, const NewTokens& value, const CachePages& key_cache, const CachePages& value_cache,
                  const int64_t* slots, int64_t slot_stride, float key_scale, float value_scale) {
  const int64_t capacity = key_cache.blocks * key_cache.block_size;
  for (int64_t token = 0; token < key.count; ++token) {
    const int64_t slot = slots[token * slot_stride];
    if (slot < -1 || slot >= capacity) {
      throw std::runtime_error("cpu_attn_reshape_and_cache: slot_mapping holds " + std::to_string(slot) + " for token " +
                               std::to_string(token) + ", expected -1 (no slot) or 0 <= slot < " + std::to_string(capacity) +
                               " (num_blocks * block_size)");
    }
  }
  auto& function = VLLM_CPU_DISPATCH(WriteRange);
  ParallelFor(key.count, 2 * key_cache.heads * key_cache.head_size, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> scratch(static_cast<size_t>(CachePages::kPanel * key_cache.head_size));
    function(key, value, key_cache, value_cache, slots, slot_stride, 1.0f / key_scale, 1.0f / value_scale, begin, end, scratch.data());
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
