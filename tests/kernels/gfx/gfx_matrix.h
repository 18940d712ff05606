// SPDX-License-Identifier: Apache-2.0
// Products of 16x16 matrices with 16 columns and rows in between, and where lanes hold their
// elements: in AMD's documents on the instructions v_wmma_* of RDNA3 and RDNA4 and v_mfma_* of
// CDNA.
#pragma once

#include "gfx_machine.h"

namespace gfx {

struct Place {
  int lane, element;  // element: number of a half in the lane's registers
};
// Where row (of A) or column (of B) `line` has element `k`. RDNA3 has each line twice.
inline Place PlaceOfFactor(int line, int k) {
  if (kGeneration == 11) return {line, k};
  if (kGeneration == 12) return {line + 16 * (k / 8), k % 8};
  return {line + 16 * (k / 4), k % 4};
}
// Where the sum of a row and a column is, element: number of a register.
inline Place PlaceOfSum(int row, int column) {
  if (kGeneration == 11) return {column + 16 * (row % 2), row / 2};
  if (kGeneration == 12) return {column + 16 * (row / 8), row % 8};
  return {column + 16 * (row / 4), row % 4};
}

template <typename T>
float ReadFactor(Wave& w, unsigned code, int line, int k) {
  const Place place = PlaceOfFactor(line, k);
  const uint32_t pair = w.Vector(code - kVgpr + place.element / 2)[place.lane];
  const uint32_t bits = place.element % 2 ? pair >> 16 : pair & 0xffff;
  if constexpr (std::is_same_v<T, Half>)
    return static_cast<float>(As<Half, 16>(bits));
  else
    return bf16_to_f32(As<BFloat, 16>(bits));
}

// D = A B + C in float32, with the product's terms added one after the other. The order in which a
// GPU adds them is not documented.
template <typename T>
void MultiplyMatrices(Wave& w, const Inst& inst, unsigned d, unsigned a, unsigned b, unsigned c) {
  if (a < kVgpr || b < kVgpr) Fail(inst, "a factor is not in vector registers");
  if (kRdna && w.Exec() != kMask<kLanes>) Fail(inst, "not all lanes are on");
  float sums[16][16];
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 16; ++column) {
      const Place place = PlaceOfSum(row, column);
      float sum = c < kVgpr ? As<float, 32>(ReadScalar<32, Kind::kFloat>(w, inst, c))
                            : As<float, 32>(w.Vector(c - kVgpr + place.element)[place.lane]);
      for (int k = 0; k < 16; ++k)
        sum += ReadFactor<T>(w, a, row, k) * ReadFactor<T>(w, b, column, k);
      sums[row][column] = sum;
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 16; ++column) {
      const Place place = PlaceOfSum(row, column);
      w.Vector(d + place.element)[place.lane] = static_cast<uint32_t>(Raw(sums[row][column]));
    }
  }
}

}  // namespace gfx
