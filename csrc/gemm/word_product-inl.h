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

#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "gemm/tiles.h"
#include "gemm/words.h"

#undef VLLM_WORDS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_ZEN4
#define VLLM_WORDS 1
#else
#define VLLM_WORDS 0
#endif

#if VLLM_WORDS
HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

using U32 = hn::ScalableTag<uint32_t>;
using VU32 = hn::Vec<U32>;

// The products of words: two elements of bfloat16.
struct BFloat16Words {
  using Sum = float;
  using Sums = hn::Vec<F32>;
  static HWY_INLINE Sums Add(VU32 a, VU32 b, Sums sum) {
    const hn::Repartition<hwy::bfloat16_t, F32> d;
    Sums unused = sum;
    return hn::ReorderWidenMulAccumulate(F32(), hn::BitCast(d, a), hn::BitCast(d, b), sum, unused);
  }
  static void Multiply(const TileProduct& product) { MultiplyBFloat16Tiles(product); }
};

// Four elements of int8. The instructions for vectors multiply unsigned with signed bytes, so A has
// 128 added to each element then.
struct Int8Words {
  using Sum = int32_t;
  using Sums = hn::Vec<hn::RebindToSigned<F32>>;
  static HWY_INLINE Sums Add(VU32 a, VU32 b, Sums sum) {
    const hn::RebindToSigned<F32> d;
    return hn::SumOfMulQuadAccumulate(d, hn::BitCast(hn::Repartition<uint8_t, F32>(), a),
                                      hn::BitCast(hn::Repartition<int8_t, F32>(), b), sum);
  }
  static void Multiply(const TileProduct& product) { MultiplyInt8Tiles(product); }
};

// The rows of A whose sums are in registers at once with those of four panels: 24 sums of 32
// registers.
constexpr size_t kWordRows = 6;
constexpr size_t kWordPanels = 4;

// The sums of a row and up to four panels.
template <class Dot>
struct RowSums {
  typename Dot::Sums s0, s1, s2, s3;
};

// c (+)= the products of kRows rows of A and kPanels panels of B. The order of additions is that of
// the depth, no matter how it is divided.
template <class Dot, size_t kRows, size_t kPanels>
HWY_INLINE void MultiplyWordTile(const uint32_t* HWY_RESTRICT a, size_t a_stride,
                                 const uint32_t* HWY_RESTRICT b, size_t panel, size_t words,
                                 typename Dot::Sum* HWY_RESTRICT c, size_t c_stride, bool add) {
  static_assert(kPanels == 1 || kPanels == kWordPanels, "one panel or all");
  const U32 d;
  const hn::Rebind<typename Dot::Sum, U32> ds;
  using Row = RowSums<Dot>;
  const auto begin = [&](size_t r) HWY_ATTR {
    const typename Dot::Sum* from = c + r * c_stride;
    Row row;
    row.s0 = add ? hn::LoadU(ds, from) : hn::Zero(ds);
    if constexpr (kPanels > 1) {
      row.s1 = add ? hn::LoadU(ds, from + kTileWords) : hn::Zero(ds);
      row.s2 = add ? hn::LoadU(ds, from + 2 * kTileWords) : hn::Zero(ds);
      row.s3 = add ? hn::LoadU(ds, from + 3 * kTileWords) : hn::Zero(ds);
    }
    return row;
  };
  Row r0 = begin(0), r1, r2, r3, r4, r5;
  if constexpr (kRows > 1) r1 = begin(1);
  if constexpr (kRows > 2) r2 = begin(2);
  if constexpr (kRows > 3) r3 = begin(3);
  if constexpr (kRows > 4) r4 = begin(4);
  if constexpr (kRows > 5) r5 = begin(5);
  for (size_t k = 0; k < words; ++k, b += kTileWords) {
    VU32 v0 = hn::LoadU(d, b), v1 = v0, v2 = v0, v3 = v0;
    if constexpr (kPanels > 1) {
      v1 = hn::LoadU(d, b + panel);
      v2 = hn::LoadU(d, b + 2 * panel);
      v3 = hn::LoadU(d, b + 3 * panel);
    }
    const auto step = [&](size_t r, Row& row) HWY_ATTR {
      const VU32 x = hn::Set(d, a[r * a_stride + k]);
      row.s0 = Dot::Add(x, v0, row.s0);
      if constexpr (kPanels > 1) {
        row.s1 = Dot::Add(x, v1, row.s1);
        row.s2 = Dot::Add(x, v2, row.s2);
        row.s3 = Dot::Add(x, v3, row.s3);
      }
    };
    step(0, r0);
    if constexpr (kRows > 1) step(1, r1);
    if constexpr (kRows > 2) step(2, r2);
    if constexpr (kRows > 3) step(3, r3);
    if constexpr (kRows > 4) step(4, r4);
    if constexpr (kRows > 5) step(5, r5);
  }
  const auto end = [&](size_t r, const Row& row) HWY_ATTR {
    typename Dot::Sum* to = c + r * c_stride;
    hn::StoreU(row.s0, ds, to);
    if constexpr (kPanels > 1) {
      hn::StoreU(row.s1, ds, to + kTileWords);
      hn::StoreU(row.s2, ds, to + 2 * kTileWords);
      hn::StoreU(row.s3, ds, to + 3 * kTileWords);
    }
  };
  end(0, r0);
  if constexpr (kRows > 1) end(1, r1);
  if constexpr (kRows > 2) end(2, r2);
  if constexpr (kRows > 3) end(3, r3);
  if constexpr (kRows > 4) end(4, r4);
  if constexpr (kRows > 5) end(5, r5);
}

template <class Dot, size_t kPanels>
HWY_NOINLINE void MultiplyWordTiles(const uint32_t* a, size_t a_stride, size_t rows,
                                    const uint32_t* b, size_t panel, size_t words,
                                    typename Dot::Sum* c, size_t c_stride, bool add) {
  for (; rows >= kWordRows;
       rows -= kWordRows, a += kWordRows * a_stride, c += kWordRows * c_stride) {
    MultiplyWordTile<Dot, kWordRows, kPanels>(a, a_stride, b, panel, words, c, c_stride, add);
  }
  switch (rows) {
    case 1:
      return MultiplyWordTile<Dot, 1, kPanels>(a, a_stride, b, panel, words, c, c_stride, add);
    case 2:
      return MultiplyWordTile<Dot, 2, kPanels>(a, a_stride, b, panel, words, c, c_stride, add);
    case 3:
      return MultiplyWordTile<Dot, 3, kPanels>(a, a_stride, b, panel, words, c, c_stride, add);
    case 4:
      return MultiplyWordTile<Dot, 4, kPanels>(a, a_stride, b, panel, words, c, c_stride, add);
    case 5:
      return MultiplyWordTile<Dot, 5, kPanels>(a, a_stride, b, panel, words, c, c_stride, add);
    default:
      return;
  }
}

// The memory of one thread for MultiplyWords. It grows to what a product needs.
class WordMemory {
 public:
  // Return memory for that many words; what was in it is lost.
  uint32_t* GetA(size_t words) { return Grow(a_, a_size_, words); }
  uint32_t* GetC(size_t words) { return Grow(c_, c_size_, words); }

 private:
  using Memory = hwy::AlignedFreeUniquePtr<uint32_t[]>;

  static uint32_t* Grow(Memory& memory, size_t& size, size_t words) {
    if (size < words) {
      memory = hwy::AllocateAligned<uint32_t>(words);
      size = words;
    }
    return memory.get();
  }

  Memory a_, c_;
  size_t a_size_ = 0, c_size_ = 0;
};

// Padding after each row of A and of the sums, so that the rows do not share cache sets.
constexpr size_t kWordPad = kTileWords;

// MultiplyWords with vectors, for up to a block of rows.
template <class Dot, typename Fill, typename Finish>
HWY_INLINE void MultiplyWordBlock(size_t row, size_t rows, const Fill& fill, const WordPanels& b,
                                  size_t first, size_t last, const WordBlocks& blocks,
                                  WordMemory& memory, const Finish& finish) {
  const size_t panel = b.words * kTileWords;
  // With few rows, no part of B is read twice.
  const size_t step = rows <= kWordRows ? b.words : blocks.inner;
  const size_t a_stride = HWY_MIN(step, b.words) + kWordPad;
  const size_t c_stride = blocks.columns + kWordPad;
  uint32_t* a = memory.GetA(rows * a_stride);
  auto* c = reinterpret_cast<typename Dot::Sum*>(memory.GetC(rows * c_stride));
  for (size_t column = first; column < last; column += blocks.columns) {
    const size_t stop = HWY_MIN(last, column + blocks.columns);
    for (size_t k = 0; k < b.words; k += step) {
      const size_t part = HWY_MIN(step, b.words - k);
      for (size_t r = 0; r < rows; ++r) fill(row + r, k, part, a + r * a_stride);
      for (size_t n = column; n < stop;) {
        const uint32_t* from = b.data + n * b.words + k * kTileWords;
        auto* to = c + (n - column);
        if (n + kWordPanels * kTileWords <= stop) {
          MultiplyWordTiles<Dot, kWordPanels>(a, a_stride, rows, from, panel, part, to, c_stride,
                                              k != 0);
          n += kWordPanels * kTileWords;
        } else {
          MultiplyWordTiles<Dot, 1>(a, a_stride, rows, from, panel, part, to, c_stride, k != 0);
          n += kTileWords;
        }
      }
    }
    finish(row, rows, column, stop - column, c, c_stride);
  }
}

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
                                  size_t first, size_t last, const WordBlocks& blocks,
                                  WordMemory& memory, const Finish& finish) {
  const size_t panel = b.words * kTileWords;
  const size_t strips = (rows + kStripRows - 1) / kStripRows;
  // Fewer rows leave room for more of their words.
  const size_t most = blocks.words * blocks.rows / (strips * kStripRows) / kTileWords * kTileWords;
  // At least one part, even of a product without words.
  const size_t parts = b.words == 0 ? 1 : (b.words + most - 1) / most;
  const size_t step = ((b.words + parts - 1) / parts + kTileWords - 1) / kTileWords * kTileWords;
  // If A is kept as a whole, the sums of few columns are finished while they are in the cache.
  const size_t columns = parts == 1 ? 8 * kTileWords : blocks.columns;
  const size_t c_stride = columns + kWordPad;
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
                              size_t last, bool tiles, WordMemory& memory, const Finish& finish) {
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
  const WordBlocks blocks = tiles ? GetTileBlocks() : GetVectorBlocks();
  if (tiles) {
    const TileScope scope;
    for (size_t i = 0; i < rows; i += blocks.rows) {
      MultiplyTileBlock<Dot>(i, HWY_MIN(blocks.rows, rows - i), fill, b, first, last, blocks,
                             memory, finish);
    }
    return;
  }
  for (size_t i = 0; i < rows; i += blocks.rows) {
    MultiplyWordBlock<Dot>(i, HWY_MIN(blocks.rows, rows - i), fill, b, first, last, blocks, memory,
                           finish);
  }
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
