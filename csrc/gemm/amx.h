// SPDX-License-Identifier: Apache-2.0
// Products of bfloat16 with the tiles of AMX (Intel 64 and IA-32 Architectures Software Developer's
// Manual, volume 1, chapter 18, and TDPBF16PS in volume 2).
#pragma once

#include <cstdint>

namespace vllm {

// The rows of A that one call multiplies: those of two tiles.
inline constexpr int64_t kAmxRows = 32;

// Returns whether this CPU has AMX with bfloat16, the operating system lets this process use it,
// and VLLM_CPU_ISA does not forbid it. The first call asks the operating system.
bool CanUseAmx();

// Tiles are configured for as long as the object exists, on its thread.
class AmxTiles {
 public:
  explicit AmxTiles(int64_t rows);
  ~AmxTiles();
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  // c[r, 16 * p + n] = sum over k of a[r, k] * panel p [k, n], for the rows of the constructor, at
  // most kAmxRows, and `panels` panels of PackedWeight, which are `panel_elements` apart. `a` has
  // 32 * `tiles` numbers in each row, rows are `a_stride` elements apart; rows of c `c_stride`.
  void Multiply(const uint16_t* a, int64_t a_stride, const uint16_t* b, int64_t panel_elements,
                int64_t panels, int64_t tiles, float* c, int64_t c_stride) const;

 private:
  int64_t rows_;
};

}  // namespace vllm
