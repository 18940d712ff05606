// SPDX-License-Identifier: Apache-2.0
// The product of rows and a matrix packed in words (gemm/words.h). Three ops use it: the matrix
// product, that of int8, and the experts of a mixture. Compiled once for each target, for those
// whose vectors are as long as a panel and that multiply words.
#if defined(VLLM_GEMM_WORD_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_GEMM_WORD_PRODUCT_INL_H_
#undef VLLM_GEMM_WORD_PRODUCT_INL_H_
#else
#define VLLM_GEMM_WORD_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "core/words-inl.h"
#include "gemm/panel_tile-inl.h"
#include "gemm/tiles.h"
#include "gemm/words.h"

#if VLLM_WORDS
HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

static_assert(kVectorRows == kWordTileRows && kTilePanels == kWordTilePanels);

// The words of A and B; see gemm/panel_tile-inl.h.
struct Words {
  using Word = uint32_t;
  using Packed = uint32_t;
  static HWY_INLINE VU32 Load(const uint32_t* p) { return hn::LoadU(U32(), p); }
  static HWY_INLINE VU32 Broadcast(const uint32_t* p) { return hn::Set(U32(), *p); }
};

// The products of words: two elements of bfloat16.
struct BFloat16Words : Words {
  using Sum = float;
  using Sums = hn::Vec<F32>;
  static HWY_INLINE Sums Add(VU32 a, VU32 b, Sums sum) { return AddBFloat16Words(a, b, sum); }
  static void Multiply(const TileProduct& product) { MultiplyBFloat16Tiles(product); }
};

// Four elements of int8. The instructions for vectors multiply unsigned with signed bytes, so A has
// 128 added to each element then.
struct Int8Words : Words {
  using Sum = int32_t;
  using Sums = hn::Vec<hn::RebindToSigned<F32>>;
  static HWY_INLINE Sums Add(VU32 a, VU32 b, Sums sum) { return AddInt8Words(a, b, sum); }
  static void Multiply(const TileProduct& product) { MultiplyInt8Tiles(product); }
};

// Packs words [from, from + words) of rows for products with tiles: strips of 16 rows, padded with
// zeros.
template <typename Fill>
HWY_INLINE void PackStrips(size_t row, size_t rows, const Fill& fill, size_t from, size_t words,
                           uint32_t* to) {
  constexpr size_t kTogether = 4;  // tiles, for which each row is read sequentially
  for (size_t strip = 0; strip < rows; strip += kStripRows, to += kStripRows * words) {
    const size_t count = HWY_MIN(kStripRows, rows - strip);
    for (size_t k = 0; k < words; k += kTogether * kTileWords) {
      const size_t end = HWY_MIN(words, k + kTogether * kTileWords);
      for (size_t r = 0; r < kStripRows; ++r) {
        for (size_t i = k; i < end; i += kTileWords) {
          uint32_t* tile = to + i * kStripRows + r * kTileWords;
          if (r < count) {
            fill(row + strip + r, from + i, kTileWords, tile);
          } else {
            hn::Store(hn::Zero(U32()), U32(), tile);
          }
        }
      }
    }
  }
}

// MultiplyWords with tiles, for up to a block of rows.
template <class Dot, typename Fill, typename Finish>
HWY_INLINE void MultiplyTileBlock(size_t row, size_t rows, const Fill& fill, const WordPanels& b,
                                  size_t first, size_t last, const TileBlocks& blocks,
                                  PanelMemory& memory, const Finish& finish) {
  const size_t panel = b.words * kTileWords;
  const size_t strips = (rows + kStripRows - 1) / kStripRows;
  // Fewer rows leave room for more of their words.
  const size_t most = blocks.words * blocks.rows / (strips * kStripRows) / kTileWords * kTileWords;
  // At least one part, even of a product without words.
  const size_t parts = b.words == 0 ? 1 : (b.words + most - 1) / most;
  const size_t step = ((b.words + parts - 1) / parts + kTileWords - 1) / kTileWords * kTileWords;
  // If A is kept as a whole, the sums of few columns are finished while they are in the cache.
  const size_t columns = parts == 1 ? 8 * kTileWords : blocks.columns;
  const size_t c_stride = columns + kTileWords;
  const size_t together = strips == 1 ? 4 : 2;
  uint32_t* a = memory.GetA(strips * kStripRows * step);
  auto* c = reinterpret_cast<typename Dot::Sum*>(memory.GetC(strips * kStripRows * c_stride));
  if (parts == 1) PackStrips(row, rows, fill, 0, b.words, a);
  for (size_t column = first; column < last; column += columns) {
    const size_t stop = HWY_MIN(last, column + columns);
    const size_t end = parts == 1 ? last : stop;
    for (size_t k = 0; k < b.words; k += step) {
      const size_t part = HWY_MIN(step, b.words - k);
      if (parts > 1) PackStrips(row, rows, fill, k, part, a);
      TileProduct product;
      product.a = a;
      product.a_strip = kStripRows * part;
      product.tiles = part / kTileWords;
      product.add = k != 0;
      product.strips = strips;
      product.b_panel = panel;
      product.c_stride = c_stride;
      for (size_t n = column; n < stop; n += product.panels * kTileWords) {
        product.panels = n + together * kTileWords <= stop ? together : 1;
        product.c = c + (n - column);
        product.b = b.data + n * b.words + k * kTileWords;
        // The panels after these, if they are as many.
        product.next = n + 2 * product.panels * kTileWords <= end
                           ? product.b + product.panels * panel
                           : nullptr;
        Dot::Multiply(product);
      }
    }
    finish(row, rows, column, stop - column, c, c_stride);
  }
}

// Multiplies `rows` rows by columns [first, last) of B. fill(row, from, words, to) writes words
// [from, from + words) of a row, with zeros after its end; `words` is a multiple of kTileWords.
// Passes results to finish(row, count, column, columns, c, c_stride): `count` rows from `row` on
// and `columns` columns from `column` on. `tiles` says whether AMX is used.
template <class Dot, typename Fill, typename Finish>
HWY_INLINE void MultiplyWords(size_t rows, const Fill& fill, const WordPanels& b, size_t first,
                              size_t last, bool tiles, PanelMemory& memory, const Finish& finish) {
  if (b.words == 0) {
    for (size_t column = first; column < last; column += kTileWords) {
      uint32_t* c = memory.GetC(kTileWords);
      std::fill(c, c + kTileWords, 0);
      for (size_t i = 0; i < rows; ++i) {
        finish(i, 1, column, HWY_MIN(kTileWords, last - column),
               reinterpret_cast<typename Dot::Sum*>(c), kTileWords);
      }
    }
    return;
  }
  if (tiles) {
    const TileBlocks blocks = GetTileBlocks();
    const TileScope scope;
    for (size_t i = 0; i < rows; i += blocks.rows) {
      MultiplyTileBlock<Dot>(i, HWY_MIN(blocks.rows, rows - i), fill, b, first, last, blocks,
                             memory, finish);
    }
    return;
  }
  MultiplyPanels<Dot>(
      rows, [&](size_t i, uint32_t* to) HWY_ATTR { fill(i, 0, b.words, to); }, b.data, b.words,
      first, last, memory, finish);
}

// Writes words [from, from + words) of a row of `depth` elements of bfloat16, or of float32 that
// are rounded to it.
template <typename A>
HWY_INLINE void FillBFloat16Words(const A* HWY_RESTRICT row, size_t depth, size_t from,
                                  size_t words, uint32_t* HWY_RESTRICT to) {
  const hn::Repartition<hwy::bfloat16_t, F32> d;
  auto* out = reinterpret_cast<hwy::bfloat16_t*>(to);
  constexpr size_t kLanes = 2 * kTileWords;
  for (size_t i = 0; i < 2 * words; i += kLanes) {
    const size_t k = 2 * from + i;
    const size_t left = k < depth ? HWY_MIN(kLanes, depth - k) : 0;
    if constexpr (sizeof(A) == sizeof(float)) {
      const size_t low = HWY_MIN(left, kTileWords);
      const VF32 v0 = hn::LoadN(F32(), row + k, low);
      const VF32 v1 = hn::LoadN(F32(), row + k + kTileWords, left - low);
      hn::StoreU(hn::OrderedDemote2To(d, v0, v1), d, out + i);
    } else if (left == kLanes) {
      hn::StoreU(hn::LoadU(d, row + k), d, out + i);
    } else {
      hn::StoreU(hn::LoadN(d, row + k, left), d, out + i);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();
#endif  // VLLM_WORDS

#endif  // VLLM_GEMM_WORD_PRODUCT_INL_H_
