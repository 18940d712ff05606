// SPDX-License-Identifier: Apache-2.0
// Attention of one tile of queries over a cache of any element type. Compiled once for each target.
#if defined(VLLM_ATTENTION_PAGED_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ATTENTION_PAGED_ATTENTION_INL_H_
#undef VLLM_ATTENTION_PAGED_ATTENTION_INL_H_
#else
#define VLLM_ATTENTION_PAGED_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "attention/attention.h"
#include "attention/head_rows-inl.h"
#include "attention/multiply-inl.h"
#include "attention/softmax-inl.h"
#include "attention/tile.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Keys [begin, end) of a request that are contiguous in memory. Value panel j of key k is at values
// + j * panel_stride + (k - begin) * kPanel. `tail` is the incomplete panel as A, padded with
// zeros.
template <typename T, typename A>
struct ValuePiece {
  int64_t begin = 0;
  int64_t end = 0;
  const T* values = nullptr;
  size_t panel_stride = 0;
  const A* tail = nullptr;
  ptrdiff_t ahead = 0;  // elements from `values` to the memory that is read after this piece
};

// Locates the keys and values of one request and head in a cache of T.
template <typename T>
class Pages {
 public:
  Pages(const Tile& tile) : tile_(tile), key_(tile.call->key), value_(tile.call->value) {}

  const T* KeyPanel(int64_t key) const {
    return Page(key_, key) +
           key % key_.block_size / CachePages::kPanel * key_.head_size * CachePages::kPanel;
  }

  // Returns how many elements lie between a key's panel and the same place of the page that is read
  // next: the page of the next block of keys before `end`, or, after the last one, of the block of
  // values of key `begin`. The hardware can follow a stream once it has begun, but not a block
  // table.
  ptrdiff_t GetKeyPrefetchDistance(int64_t key, int64_t begin, int64_t end) const {
    const int64_t next = FindNextBlock(key);
    return GetDistance(Page(key_, key), next < end ? Page(key_, next) : Page(value_, begin));
  }

  // The same for values. After the last block of values, the keys of `end` follow, unless `last` is
  // set.
  ptrdiff_t GetValuePrefetchDistance(int64_t key, int64_t end, bool last) const {
    const int64_t next = FindNextBlock(key);
    if (next < end) return GetDistance(Page(value_, key), Page(value_, next));
    return last ? 0 : GetDistance(Page(value_, key), Page(key_, end));
  }

  // Returns the piece that begins at `key`, within its block and before `end`. Converts the
  // incomplete panel to `tail`.
  template <typename A>
  ValuePiece<T, A> GetValues(int64_t key, int64_t end, A* HWY_RESTRICT tail) const {
    const int64_t offset = key % value_.block_size;
    end = std::min(end, key - offset + value_.block_size);
    const T* page = Page(value_, key);
    const size_t width = static_cast<size_t>(value_.head_size) % kPanel;
    if (width != 0) {
      const T* from = page + (value_.head_size - static_cast<int64_t>(width)) * value_.block_size +
                      offset * static_cast<int64_t>(width);
      for (int64_t k = key; k < end; ++k, from += width, tail += kPanel) Convert(from, tail, width);
      tail -= static_cast<size_t>(end - key) * kPanel;
    }
    return {key,
            end,
            page + offset * CachePages::kPanel,
            static_cast<size_t>(value_.block_size) * kPanel,
            tail,
            0};
  }

 private:
  int64_t FindNextBlock(int64_t key) const { return (key / key_.block_size + 1) * key_.block_size; }

  // The pages may belong to different tensors.
  static ptrdiff_t GetDistance(const T* from, const T* to) {
    return (reinterpret_cast<intptr_t>(to) - reinterpret_cast<intptr_t>(from)) /
           static_cast<ptrdiff_t>(sizeof(T));
  }

  const T* Page(const CachePages& pages, int64_t key) const {
    return pages.Page<const T>(tile_.block_table[key / pages.block_size], tile_.key_head);
  }

  const Tile& tile_;
  const CachePages& key_;
  const CachePages& value_;
};

// The rows in [begin, end) whose token sees a key of [first, last). Rows are sorted: for later
// tokens, the visible range begins and ends later.
struct SeeingRows {
  size_t begin;
  size_t end;
};

HWY_INLINE SeeingRows FindSeeingRows(const Tile& tile, int64_t first, int64_t last) {
  size_t begin = 0, end = tile.rows;
  while (begin < end && tile.visible[begin].end <= first) ++begin;
  while (end > begin && tile.visible[end - 1].begin >= last) --end;
  return {begin, end};
}

// Computes the scores of the keys [begin, end), where begin is a multiple of kPanel, into column k
// - begin of tile.scores. key_panel(key) returns the address of a panel, and ahead(key) the
// distance from there to the memory that kExtra::kPrefetch prefetches.
template <Extra kExtra, typename A, typename F, typename D>
HWY_INLINE void ComputeScores(const Tile& tile, int64_t begin, int64_t end, const F& key_panel,
                              const D& ahead) {
  const A* query = As<A>(tile.query);
  const int64_t width = IsVectorPanel() ? 2 * CachePages::kPanel : CachePages::kPanel;
  for (int64_t key = begin; key < end; key += width) {
    const auto* panel0 = key_panel(key);
    const auto* panel1 = IsVectorPanel() && key + CachePages::kPanel < end
                             ? key_panel(key + CachePages::kPanel)
                             : nullptr;
    const SeeingRows seeing = FindSeeingRows(tile, key, key + width);
    const ptrdiff_t distance = ahead(key);
    for (size_t row = seeing.begin; row < seeing.end;) {
      const size_t n = ChooseBlockRows(seeing.end - row);
      MultiplyPanels<kExtra>(n, tile.head_size, query + row * tile.head_size, tile.head_size,
                             panel0, panel1, kPanel, distance,
                             tile.scores + row * Tile::kKeys + (key - begin), Tile::kKeys);
      row += n;
    }
  }
}

// Turns the scores of keys [begin, end) into weights and rescales the sums so far to the same
// reference.
template <typename A>
HWY_INLINE void ComputeWeights(const Tile& tile, int64_t begin, int64_t end) {
  const PagedAttention& call = *tile.call;
  const size_t columns = static_cast<size_t>(end - begin);
  const auto column = [&](int64_t key) {
    return static_cast<size_t>(std::clamp<int64_t>(key - begin, 0, end - begin));
  };
  for (size_t row = 0; row < tile.rows; ++row) {
    ScoreTerms terms;
    terms.scale = call.scale * call.key_scale * kLog2E;
    terms.cap = call.softcap * kLog2E;
    if (call.alibi_slopes != nullptr) {
      terms.slope = call.alibi_slopes[tile.HeadOfRow(row)] * kLog2E;
      terms.distance = static_cast<float>(begin - tile.request->Position(tile.TokenOfRow(row)));
    }
    const size_t at = row * Tile::kKeys;
    const float factor = ApplySoftmax(tile.scores + at, column(tile.visible[row].begin),
                                      column(tile.visible[row].end), columns, terms,
                                      GetWeights<A>(tile) + at, tile.states[row]);
    if (factor != 1.0f) ScaleRow(tile.sums + row * tile.sum_stride, tile.sum_stride, factor);
  }
}

// Adds the values of a piece, multiplied by their weights. `begin` is the key of the first column
// of the weights.
template <Extra kExtra, typename A, typename T>
HWY_INLINE void AddValues(const Tile& tile, int64_t begin, const ValuePiece<T, A>& piece) {
  const size_t full = tile.head_size / kPanel;
  const size_t width = IsVectorPanel() ? 2 : 1;
  const SeeingRows seeing = FindSeeingRows(tile, piece.begin, piece.end);
  for (size_t panel = 0; panel * kPanel < tile.head_size;
       panel += panel < full ? std::min(width, full - panel) : 1) {
    for (size_t row = seeing.begin; row < seeing.end;) {
      const size_t n = ChooseBlockRows(seeing.end - row);
      // Skips keys that no row of the block sees, because their memory may hold anything.
      const int64_t first = std::max(piece.begin, tile.visible[row].begin);
      const int64_t last = std::min(piece.end, tile.visible[row + n - 1].end);
      if (first < last) {
        const A* weights = GetWeights<A>(tile) + row * Tile::kKeys + (first - begin);
        float* sums = tile.sums + row * tile.sum_stride + panel * kPanel;
        const size_t keys = static_cast<size_t>(last - first);
        const size_t offset = static_cast<size_t>(first - piece.begin) * kPanel;
        if (panel < full) {
          const T* panel0 = piece.values + panel * piece.panel_stride + offset;
          const T* panel1 = width == 2 && panel + 1 < full ? panel0 + piece.panel_stride : nullptr;
          MultiplyPanels<kExtra>(n, keys, weights, Tile::kKeys, panel0, panel1, kPanel, piece.ahead,
                                 sums, tile.sum_stride);
        } else {
          MultiplyPanels<Extra::kAdd, A, A>(n, keys, weights, Tile::kKeys, piece.tail + offset,
                                            nullptr, kPanel, 0, sums, tile.sum_stride);
        }
      }
      row += n;
    }
  }
}

// For few rows, and for bfloat16 in words: keys and values go from the cache to the products in
// registers.
template <typename A, typename T>
HWY_NOINLINE void AttendDirectly(const Tile& tile) {
  const Pages<T> pages(tile);
  for (int64_t begin = tile.item->keys_begin / 16 * 16; begin < tile.item->keys_end;
       begin += Tile::kKeys) {
    const int64_t end = std::min<int64_t>(begin + Tile::kKeys, tile.item->keys_end);
    ComputeScores<Extra::kPrefetch, A>(
        tile, begin, end, [&](int64_t key) { return pages.KeyPanel(key); },
        [&](int64_t key) { return pages.GetKeyPrefetchDistance(key, begin, end); });
    ComputeWeights<A>(tile, begin, end);
    for (int64_t key = begin; key < end;) {
      ValuePiece<T, A> piece = pages.GetValues(key, end, As<A>(tile.value_tail));
      piece.ahead = pages.GetValuePrefetchDistance(key, end, end == tile.item->keys_end);
      AddValues<Extra::kAddAndPrefetch>(tile, begin, piece);
      key = piece.end;
    }
  }
}

// For many rows: converts keys and values once, into memory that stays in the caches while all rows
// use them.
template <typename T>
HWY_NOINLINE void AttendPacked(const Tile& tile) {
  const Pages<T> pages(tile);
  const size_t key_panel = tile.head_size * kPanel;
  const size_t value_panel = Tile::kKeys * kPanel;
  const size_t full = tile.head_size / kPanel;
  for (int64_t begin = tile.item->keys_begin / 16 * 16; begin < tile.item->keys_end;
       begin += Tile::kKeys) {
    const int64_t end = std::min<int64_t>(begin + Tile::kKeys, tile.item->keys_end);
    for (int64_t key = begin; key < end; key += CachePages::kPanel) {
      Convert(pages.KeyPanel(key),
              tile.packed_keys + static_cast<size_t>(key - begin) / kPanel * key_panel, key_panel);
    }
    ComputeScores<Extra::kNone, float>(
        tile, begin, end,
        [&](int64_t key) {
          return tile.packed_keys + static_cast<size_t>(key - begin) / kPanel * key_panel;
        },
        [](int64_t /*key*/) { return ptrdiff_t{0}; });
    ComputeWeights<float>(tile, begin, end);
    float* tail = tile.packed_values + full * value_panel;
    for (int64_t key = begin; key < end;) {
      const size_t offset = static_cast<size_t>(key - begin) * kPanel;
      const ValuePiece<T, float> piece = pages.GetValues(key, end, tail + offset);
      const size_t n = static_cast<size_t>(piece.end - piece.begin) * kPanel;
      for (size_t panel = 0; panel < full; ++panel) {
        Convert(piece.values + panel * piece.panel_stride,
                tile.packed_values + panel * value_panel + offset, n);
      }
      key = piece.end;
    }
    AddValues<Extra::kAdd>(
        tile, begin,
        ValuePiece<float, float>{begin, end, tile.packed_values, value_panel, tail, 0});
  }
}

// Loads the queries of a tile, converted to A.
template <typename A, typename T>
HWY_NOINLINE void LoadQueries(const Tile& tile) {
  LoadQueryRows(tile, tile.head_size, tile.head_size, As<A>(tile.query),
                [&](size_t row) HWY_ATTR { return tile.Row<const T>(tile.call->query, row); });
}

// Writes the sums, divided by the softmax's denominator.
template <typename T>
HWY_NOINLINE void StoreOutput(const Tile& tile) {
  StoreOutputRows<T>(tile, tile.head_size, tile.call->value_scale,
                     [&](size_t row) HWY_ATTR { return tile.Row<T>(tile.call->output, row); });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ATTENTION_PAGED_ATTENTION_INL_H_
