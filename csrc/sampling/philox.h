// SPDX-License-Identifier: Apache-2.0
// Philox4x32 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011), a random
// function of a counter and a key.
#pragma once

#include <cstdint>

#include "core/device.h"

namespace vllm {

// Seven rounds are the fewest that pass BigCrush (table 2 there); ten are customary where speed
// does not matter.
inline constexpr int kPhiloxRounds = 7;
inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

struct PhiloxWords {
  uint32_t words[4];
  VLLM_HOST_DEVICE uint32_t operator[](int64_t i) const { return words[i]; }
};

// Returns the four words for the counter (counter, stage, 0) and the key `seed`.
VLLM_HOST_DEVICE inline PhiloxWords RunPhilox(uint64_t seed, uint64_t counter, uint32_t stage) {
  uint32_t x0 = static_cast<uint32_t>(counter), x1 = static_cast<uint32_t>(counter >> 32),
           x2 = stage, x3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
    const uint64_t p0 = uint64_t{kPhiloxMultiplier0} * x0, p1 = uint64_t{kPhiloxMultiplier1} * x2;
    x0 = static_cast<uint32_t>(p1 >> 32) ^ x1 ^ k0;
    x2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
    x1 = static_cast<uint32_t>(p1);
    x3 = static_cast<uint32_t>(p0);
  }
  return {{x0, x1, x2, x3}};
}

}  // namespace vllm
