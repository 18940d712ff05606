// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstddef>
#include <cstdint>

#include "attention/kv_cache.h"
#include "cache/slot_order.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/kv_cache_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include "cache/transpose-inl.h"
#include "core/fp8-inl.h"
#include "core/simd-inl.h"
#include "core/with_type-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Writes one token's value to its rows of the page's panels.
template <typename T>
HWY_INLINE void WriteValue(const T* HWY_RESTRICT from, T* HWY_RESTRICT page, int64_t row,
                           int64_t block_size, int64_t head_size) {
  int64_t e = 0;
  for (; e + CachePages::kPanel <= head_size; e += CachePages::kPanel) {
    T* HWY_RESTRICT to = page + e * block_size + row * CachePages::kPanel;
    for (int64_t i = 0; i < CachePages::kPanel; ++i) to[i] = from[e + i];
  }
  const int64_t width = head_size - e;
  for (int64_t i = 0; i < width; ++i) page[e * block_size + row * width + i] = from[e + i];
}

// Writes one head of the tokens of a run, which all belong to one panel. The key and value of token
// t are at keys[t] and values[t].
template <typename T>
HWY_INLINE void WriteRun(const T* const* keys, const T* const* values, const Placed* placed,
                         int64_t tokens, const CachePages& key_pages, const CachePages& value_pages,
                         int64_t head) {
  constexpr int64_t kPanel = CachePages::kPanel;
  const int64_t size = key_pages.block_size, width = key_pages.head_size;
  const int64_t block = placed->slot / size, row = placed->slot % size / kPanel * kPanel;
  const int64_t panel_slot = block * size + row;
  T* panel = key_pages.Page<T>(block, head) + row * width;
  for (int64_t t = 0; t < tokens;) {
    const int64_t first = (placed[t].slot - panel_slot) / kTile<T> * kTile<T>;
    int64_t columns[kTile<T>], n = 0;
    for (; t + n < tokens && placed[t + n].slot - panel_slot < first + kTile<T>; ++n)
      columns[n] = placed[t + n].slot - panel_slot - first;
    Transpose(keys + t, columns, n, width, panel + first, kPanel);
    t += n;
  }
  T* page = value_pages.Page<T>(block, head);
  for (int64_t t = 0; t < tokens; ++t)
    WriteValue(values[t], page, placed[t].slot - block * size, size, width);
}

// Converts n elements, times `factor`, to codes of F8.
template <typename F8, typename T>
HWY_INLINE void Encode(const T* HWY_RESTRICT from, size_t n, float factor, F8* HWY_RESTRICT to) {
  const size_t lanes = hn::Lanes(F32());
  const VF32 v_factor = hn::Set(F32(), factor);
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    StoreFour(hn::Mul(Load(from + i), v_factor), hn::Mul(Load(from + i + lanes), v_factor),
              hn::Mul(Load(from + i + 2 * lanes), v_factor),
              hn::Mul(Load(from + i + 3 * lanes), v_factor), to + i);
  }
  for (; i < n; i += lanes) {
    const size_t rest = HWY_MIN(lanes, n - i);
    StoreTail(hn::Mul(LoadTail(from + i, rest), v_factor), to + i, rest);
  }
}

// The arguments of a call that all its runs share.
struct Call {
  const NewTokens& key;
  const NewTokens& value;
  const CachePages& keys;
  const CachePages& values;
  float key_factor;  // the factors of numbers that go into a float8 cache
  float value_factor;
};

template <typename T>
HWY_INLINE const T* GetHead(const NewTokens& tokens, const Placed& placed, int64_t head) {
  return static_cast<const T*>(tokens.data) + placed.token * tokens.token_stride +
         head * tokens.head_stride;
}

// Writes a run of elements without conversion.
template <typename T>
HWY_NOINLINE void CopyRun(const Call& call, const Placed* placed, int64_t tokens, int64_t head) {
  const T *keys[CachePages::kPanel], *values[CachePages::kPanel];
  for (int64_t t = 0; t < tokens; ++t) {
    keys[t] = GetHead<T>(call.key, placed[t], head);
    values[t] = GetHead<T>(call.value, placed[t], head);
  }
  WriteRun(keys, values, placed, tokens, call.keys, call.values, head);
}

// Writes a run that is first converted to `codes`.
template <typename F8, typename T>
HWY_NOINLINE void EncodeRun(const Call& call, const Placed* placed, int64_t tokens, int64_t head,
                            uint8_t* HWY_RESTRICT codes) {
  const size_t width = static_cast<size_t>(call.keys.head_size);
  const uint8_t *keys[CachePages::kPanel], *values[CachePages::kPanel];
  for (int64_t t = 0; t < tokens; ++t, codes += 2 * width) {
    Encode(GetHead<T>(call.key, placed[t], head), width, call.key_factor,
           reinterpret_cast<F8*>(codes));
    Encode(GetHead<T>(call.value, placed[t], head), width, call.value_factor,
           reinterpret_cast<F8*>(codes + width));
    keys[t] = codes;
    values[t] = codes + width;
  }
  WriteRun(keys, values, placed, tokens, call.keys, call.values, head);
}

template <typename F8>
void EncodeTypedRun(const Call& call, const Placed* placed, int64_t tokens, int64_t head,
                    uint8_t* codes) {
  WithType(call.key.dtype, [&](auto element) HWY_ATTR {
    EncodeRun<F8, decltype(element)>(call, placed, tokens, head, codes);
  });
}

HWY_INLINE void Prefetch(const void* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) hwy::Prefetch(static_cast<const char*>(p) + i);
}

// Prefetches the memory that one head of a run reads and writes, because the hardware's prefetchers
// cannot predict it. T has the size of the cache's elements.
template <typename T>
HWY_INLINE void PrefetchRun(const Call& call, const Placed* placed, int64_t tokens, int64_t head) {
  constexpr int64_t kPanel = CachePages::kPanel, kRow = kPanel * static_cast<int64_t>(sizeof(T));
  const int64_t size = call.keys.block_size, width = call.keys.head_size;
  const int64_t block = placed->slot / size, row = placed->slot % size,
                rows = placed[tokens - 1].slot - placed->slot + 1;
  const bool wide = call.key.dtype == DType::kFloat32;
  for (int64_t t = 0; t < tokens; ++t) {
    for (const NewTokens* from : {&call.key, &call.value}) {
      if (wide) {
        Prefetch(GetHead<uint32_t>(*from, placed[t], head), width * 4);
      } else {
        Prefetch(GetHead<uint16_t>(*from, placed[t], head), width * 2);
      }
    }
  }
  Prefetch(call.keys.Page<T>(block, head) + row / kPanel * kPanel * width, width * kRow);
  for (int64_t e = 0; e < width; e += kPanel)
    Prefetch(call.values.Page<T>(block, head) + e * size + row * kPanel, rows * kRow);
}

// Writes items [begin, end): the heads of the first run, then those of the second, and so on.
// `scratch` has room for 2 * kPanel * head_size bytes.
void WriteRuns(const NewTokens& key, const NewTokens& value, const CachePages& keys,
               const CachePages& values, const Placed* placed, const Run* runs, float key_factor,
               float value_factor, int64_t begin, int64_t end, uint8_t* scratch) {
  const Call call{key, value, keys, values, key_factor, value_factor};
  for (int64_t item = begin; item < end; ++item) {
    const Run& run = runs[item / keys.heads];
    const int64_t head = item % keys.heads;
    const Placed* first = placed + run.first;
    const int64_t next = HWY_MIN(item + 1, end - 1), next_head = next % keys.heads;
    const Run& next_run = runs[next / keys.heads];
    const Placed* next_first = placed + next_run.first;
    switch (keys.dtype) {
      case CacheDType::kFloat32:
        PrefetchRun<uint32_t>(call, next_first, next_run.tokens, next_head);
        CopyRun<uint32_t>(call, first, run.tokens, head);
        break;
      case CacheDType::kBFloat16:
      case CacheDType::kFloat16:
        PrefetchRun<uint16_t>(call, next_first, next_run.tokens, next_head);
        CopyRun<uint16_t>(call, first, run.tokens, head);
        break;
      case CacheDType::kFloat8E4M3:
        PrefetchRun<uint8_t>(call, next_first, next_run.tokens, next_head);
        EncodeTypedRun<E4M3>(call, first, run.tokens, head, scratch);
        break;
      case CacheDType::kFloat8E5M2:
        PrefetchRun<uint8_t>(call, next_first, next_run.tokens, next_head);
        EncodeTypedRun<E5M2>(call, first, run.tokens, head, scratch);
        break;
    }
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

HWY_EXPORT(WriteRuns);

void WriteKvCache(const NewTokens& key, const NewTokens& value, const CachePages& key_cache,
                  const CachePages& value_cache, const int64_t* slots, int64_t slot_stride,
                  float key_scale, float value_scale) {
  const int64_t capacity = key_cache.blocks * key_cache.block_size;
  for (int64_t token = 0; token < key.count; ++token) {
    const int64_t slot = slots[token * slot_stride];
    if (slot < -1 || slot >= capacity) {
      throw std::runtime_error("cpu_attn_reshape_and_cache: slot_mapping holds " +
                               std::to_string(slot) + " for token " + std::to_string(token) +
                               ", expected -1 (no slot) or 0 <= slot < " +
                               std::to_string(capacity) + " (num_blocks * block_size)");
    }
  }
  const std::vector<Placed> placed = SortBySlot(slots, slot_stride, key.count);
  // A block holds whole panels.
  const std::vector<Run> runs =
      CutIntoRuns(placed, [](int64_t slot) { return slot / CachePages::kPanel; });
  const int64_t items = static_cast<int64_t>(runs.size()) * key_cache.heads,
                tokens = static_cast<int64_t>(placed.size());
  const bool fp8 =
      key_cache.dtype == CacheDType::kFloat8E4M3 || key_cache.dtype == CacheDType::kFloat8E5M2;
  auto& function = VLLM_CPU_DISPATCH(WriteRuns);
  ParallelFor(items, items == 0 ? 0 : 2 * tokens * key_cache.heads * key_cache.head_size / items,
              [&](int64_t begin, int64_t end) {
                std::vector<uint8_t> scratch(
                    static_cast<size_t>(fp8 ? 2 * CachePages::kPanel * key_cache.head_size : 0));
                function(key, value, key_cache, value_cache, placed.data(), runs.data(),
                         1.0f / key_scale, 1.0f / value_scale, begin, end, scratch.data());
              });
}

}  // namespace vllm
#endif  // HWY_ONCE
