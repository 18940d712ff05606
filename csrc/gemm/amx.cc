// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include "gemm/amx.h"

#include "hwy/highway.h"

#include "attention/isa.h"
#include "core/cpu_dispatch.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vllm {

#if defined(__x86_64__) && defined(__linux__)

#define VLLM_AMX __attribute__((target("amx-tile,amx-bf16")))

namespace {

bool AskForTiles() {
  // Linux's interface (Documentation/arch/x86/xstate.rst). Without the permission, the first
  // instruction ends the process. Kernels before 5.16 do not know the call and do not save tiles.
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr unsigned long kTileData = 18;     // the state component XTILEDATA
  return HasAttentionIsa("amx") && GetCpuIsa() == "avx3_zen4" &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Tiles 0 to 3 are sums, 4 and 5 are rows of A, 6 and 7 are panels.
struct alignas(64) Configuration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  explicit Configuration(int64_t count) {
    const auto first = static_cast<uint8_t>(count < 16 ? count : 16);
    // A tile has at least one row; the second one of few rows is not used.
    const auto second = static_cast<uint8_t>(count > 16 ? count - 16 : 1);
    const uint8_t counts[8] = {first, first, second, second, first, second, 16, 16};
    for (int i = 0; i < 8; ++i) {
      rows[i] = counts[i];
      row_bytes[i] = 64;
    }
  }
};

// Two panels of 16 columns, or one, for up to 16 rows, or more.
template <bool kTwoPanels, bool kTwoTiles>
VLLM_AMX void MultiplyPanels(const uint16_t* a, int64_t a_stride, const uint16_t* b,
                             int64_t panel_elements, int64_t tiles, float* c, int64_t c_stride) {
  const uint16_t* a1 = a + 16 * a_stride;
  const size_t a_bytes = static_cast<size_t>(a_stride) * sizeof(*a);
  const size_t c_bytes = static_cast<size_t>(c_stride) * sizeof(*c);
  constexpr int64_t kTile = 512;  // elements
  _tile_zero(0);
  if constexpr (kTwoPanels) _tile_zero(1);
  if constexpr (kTwoTiles) _tile_zero(2);
  if constexpr (kTwoPanels && kTwoTiles) _tile_zero(3);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    _tile_loadd(6, b + tile * kTile, 64);
    if constexpr (kTwoPanels) _tile_loadd(7, b + panel_elements + tile * kTile, 64);
    _tile_loadd(4, a + tile * 32, a_bytes);
    if constexpr (kTwoTiles) _tile_loadd(5, a1 + tile * 32, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTwoPanels) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTwoTiles) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kTwoPanels && kTwoTiles) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (kTwoPanels) _tile_stored(1, c + 16, c_bytes);
  if constexpr (kTwoTiles) _tile_stored(2, c + 16 * c_stride, c_bytes);
  if constexpr (kTwoPanels && kTwoTiles) _tile_stored(3, c + 16 * c_stride + 16, c_bytes);
}

VLLM_AMX void Configure(const Configuration& configuration) {
  // GCC 12 says that the intrinsic reads 8 bytes, and drops the assignments to the others. This
  // statement reads all of memory.
  __asm__ volatile("" : : "r"(&configuration) : "memory");
  _tile_loadconfig(&configuration);
}
VLLM_AMX void Release() { _tile_release(); }

}  // namespace

bool CanUseAmx() {
  static const bool can = AskForTiles();
  return can;
}

AmxTiles::AmxTiles(int64_t rows) : rows_(rows) { Configure(Configuration(rows)); }
AmxTiles::~AmxTiles() { Release(); }

void AmxTiles::Multiply(const uint16_t* a, int64_t a_stride, const uint16_t* b,
                        int64_t panel_elements, int64_t panels, int64_t tiles, float* c,
                        int64_t c_stride) const {
  const bool two_tiles = rows_ > 16;
  int64_t panel = 0;
  for (; panel + 2 <= panels; panel += 2, b += 2 * panel_elements, c += 32) {
    two_tiles ? MultiplyPanels<true, true>(a, a_stride, b, panel_elements, tiles, c, c_stride)
              : MultiplyPanels<true, false>(a, a_stride, b, panel_elements, tiles, c, c_stride);
  }
  if (panel == panels) return;
  two_tiles ? MultiplyPanels<false, true>(a, a_stride, b, panel_elements, tiles, c, c_stride)
            : MultiplyPanels<false, false>(a, a_stride, b, panel_elements, tiles, c, c_stride);
}

#undef VLLM_AMX

#else

bool CanUseAmx() { return false; }
AmxTiles::AmxTiles(int64_t rows) : rows_(rows) {}
AmxTiles::~AmxTiles() = default;
// Not called.
void AmxTiles::Multiply(const uint16_t*, int64_t, const uint16_t*, int64_t, int64_t, int64_t,
                        float*, int64_t) const {
  static_cast<void>(rows_);
}

#endif

}  // namespace vllm
