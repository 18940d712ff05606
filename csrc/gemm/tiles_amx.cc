// SPDX-License-Identifier: Apache-2.0
// Compiled for one instruction set, which the rest of the library does not need. Only code that has
// asked UsesAmx() calls this.
#include "core/amx.h"
#include "gemm/tiles.h"
#include "gemm/words.h"

#if VLLM_COMPILES_AMX

#include <immintrin.h>

#define VLLM_AMX __attribute__((target("amx-tile,amx-bf16,amx-int8")))

namespace vllm {
namespace {

// The operand of LDTILECFG, as Intel's Software Developer's Manual defines it.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfiguration) == 64, "the size is the instruction's");

constexpr long kRowBytes = kTileWords * sizeof(uint32_t);

// The numbers of tiles are parts of instructions and cannot be variables: tiles 0 to 3 are sums, 4
// and 5 of A, 6 and 7 of B.
#define VLLM_MULTIPLY(sum, left, right) \
  if constexpr (kInt8) {                \
    _tile_dpbssd(sum, left, right);     \
  } else {                              \
    _tile_dpbf16ps(sum, left, right);   \
  }

inline void Prefetch(const uint32_t* p, size_t lines) {
  for (size_t i = 0; i < lines; ++i)
    _mm_prefetch(reinterpret_cast<const char*>(p + i * kTileWords), _MM_HINT_T1);
}

// Two strips and two panels.
template <bool kInt8>
VLLM_AMX void MultiplyFour(const TileProduct& p, const uint32_t* a, char* c, const uint32_t* next,
                           size_t lines) {
  const long stride = static_cast<long>(p.c_stride * sizeof(uint32_t));
  char* const lower = c + static_cast<long>(kStripRows) * stride;
  if (p.add) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + kRowBytes, stride);
    _tile_loadd(2, lower, stride);
    _tile_loadd(3, lower + kRowBytes, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint32_t* a0 = a;
  const uint32_t* a1 = a + p.a_strip;
  const uint32_t* b0 = p.b;
  const uint32_t* b1 = p.b + p.b_panel;
  for (size_t k = 0; k < p.tiles; ++k) {
    _tile_loadd(6, b0, kRowBytes);
    _tile_loadd(4, a0, kRowBytes);
    VLLM_MULTIPLY(0, 4, 6);
    _tile_loadd(7, b1, kRowBytes);
    VLLM_MULTIPLY(1, 4, 7);
    _tile_loadd(5, a1, kRowBytes);
    VLLM_MULTIPLY(2, 5, 6);
    VLLM_MULTIPLY(3, 5, 7);
    Prefetch(next, lines);
    Prefetch(next + p.b_panel, lines);
    next += lines * kTileWords;
    a0 += kTileElements;
    a1 += kTileElements;
    b0 += kTileElements;
    b1 += kTileElements;
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + kRowBytes, stride);
  _tile_stored(2, lower, stride);
  _tile_stored(3, lower + kRowBytes, stride);
}

// One strip and four panels: few rows, for which memory is slower. Each panel is a stream.
template <bool kInt8>
VLLM_AMX void MultiplyRow(const TileProduct& p, const uint32_t* a, char* c) {
  const long stride = static_cast<long>(p.c_stride * sizeof(uint32_t));
  if (p.add) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + kRowBytes, stride);
    _tile_loadd(2, c + 2 * kRowBytes, stride);
    _tile_loadd(3, c + 3 * kRowBytes, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  // Four tiles ahead, in the same panels.
  constexpr size_t kAhead = 4 * kTileElements;
  const uint32_t* b = p.b;
  for (size_t k = 0; k < p.tiles; ++k) {
    _tile_loadd(4, a + k * kTileElements, kRowBytes);
    _tile_loadd(6, b, kRowBytes);
    VLLM_MULTIPLY(0, 4, 6);
    Prefetch(b + kAhead, kStripRows);
    _tile_loadd(7, b + p.b_panel, kRowBytes);
    VLLM_MULTIPLY(1, 4, 7);
    Prefetch(b + p.b_panel + kAhead, kStripRows);
    _tile_loadd(5, b + 2 * p.b_panel, kRowBytes);
    VLLM_MULTIPLY(2, 4, 5);
    Prefetch(b + 2 * p.b_panel + kAhead, kStripRows);
    _tile_loadd(6, b + 3 * p.b_panel, kRowBytes);
    VLLM_MULTIPLY(3, 4, 6);
    Prefetch(b + 3 * p.b_panel + kAhead, kStripRows);
    b += kTileElements;
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + kRowBytes, stride);
  _tile_stored(2, c + 2 * kRowBytes, stride);
  _tile_stored(3, c + 3 * kRowBytes, stride);
}

// One strip and one panel: what is left over.
template <bool kInt8>
VLLM_AMX void MultiplyOne(const TileProduct& p, const uint32_t* a, const uint32_t* b, char* c) {
  const long stride = static_cast<long>(p.c_stride * sizeof(uint32_t));
  if (p.add) {
    _tile_loadd(0, c, stride);
  } else {
    _tile_zero(0);
  }
  for (size_t k = 0; k < p.tiles; ++k) {
    _tile_loadd(4, a + k * kTileElements, kRowBytes);
    _tile_loadd(6, b + k * kTileElements, kRowBytes);
    VLLM_MULTIPLY(0, 4, 6);
  }
  _tile_stored(0, c, stride);
}

template <bool kInt8>
VLLM_AMX void Multiply(const TileProduct& p) {
  // The stores to the operands come first: the intrinsics do not tell GCC what they read.
  asm volatile("" ::: "memory");
  const size_t strip_bytes = kStripRows * p.c_stride * sizeof(uint32_t);
  char* c = static_cast<char*>(p.c);
  size_t strip = 0;
  if (p.panels == 2) {
    // Each pair of strips prefetches a part of the next panels.
    const size_t pairs = p.strips / 2;
    const size_t lines = p.next == nullptr || pairs == 0 ? 0 : (kStripRows + pairs - 1) / pairs;
    for (; strip + 2 <= p.strips; strip += 2) {
      // The last pairs may have nothing left to prefetch.
      const size_t done = strip / 2 * lines;
      const size_t part = done >= kStripRows          ? 0
                          : lines < kStripRows - done ? lines
                                                      : kStripRows - done;
      MultiplyFour<kInt8>(p, p.a + strip * p.a_strip, c + strip * strip_bytes,
                          p.next == nullptr ? p.b : p.next + done * p.tiles * kTileWords, part);
    }
  } else if (p.panels == 4) {
    for (; strip < p.strips; ++strip)
      MultiplyRow<kInt8>(p, p.a + strip * p.a_strip, c + strip * strip_bytes);
  }
  for (; strip < p.strips; ++strip) {
    for (size_t panel = 0; panel < p.panels; ++panel) {
      MultiplyOne<kInt8>(p, p.a + strip * p.a_strip, p.b + panel * p.b_panel,
                         c + strip * strip_bytes + panel * kRowBytes);
    }
  }
}

// GCC ignores the attribute of a constructor.
VLLM_AMX void Configure() {
  TileConfiguration configuration;
  for (size_t tile = 0; tile < 8; ++tile) {
    configuration.row_bytes[tile] = kRowBytes;
    configuration.rows[tile] = kStripRows;
  }
  // GCC 12 believes that the instruction reads eight bytes, and would drop the other stores.
  asm volatile("" : : "r"(&configuration) : "memory");
  _tile_loadconfig(&configuration);
}

VLLM_AMX void Release() { _tile_release(); }

}  // namespace

TileScope::TileScope() { Configure(); }
TileScope::~TileScope() { Release(); }

void MultiplyBFloat16Tiles(const TileProduct& product) { Multiply<false>(product); }
void MultiplyInt8Tiles(const TileProduct& product) { Multiply<true>(product); }

}  // namespace vllm

#else

#include <cstdlib>

// UsesAmx() returns false.
namespace vllm {
TileScope::TileScope() { std::abort(); }
TileScope::~TileScope() { std::abort(); }
void MultiplyBFloat16Tiles(const TileProduct&) { std::abort(); }
void MultiplyInt8Tiles(const TileProduct&) { std::abort(); }
}  // namespace vllm

#endif
