// SPDX-License-Identifier: Apache-2.0
// Products of tiles with AMX.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vllm {

// Keeps the tiles of this thread configured while it exists. A kernel saves tiles at every switch
// of threads until they are released.
class TileScope {
 public:
  TileScope();
  ~TileScope();
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// The operands of a product: `strips` strips of 16 rows of A and `panels` panels of B. The tiles of
// a strip and those of a panel are adjacent.
struct TileProduct {
  const uint32_t* a;
  size_t a_strip;  // words from one strip to the next
  size_t strips;
  const uint32_t* b;
  size_t b_panel;  // words from one panel to the next
  size_t panels;   // 1, 2 or, with one strip, 4
  size_t tiles;    // the depth
  void* c;         // sums: float32 for bfloat16, int32 for int8
  size_t c_stride;
  bool add;              // to the sums in c
  const uint32_t* next;  // of what is multiplied next, prefetched, with the same distance of panels
};

// The sums are added in the order of the depth, no matter how it is divided.
void MultiplyBFloat16Tiles(const TileProduct& product);
void MultiplyInt8Tiles(const TileProduct& product);

}  // namespace vllm
