// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

namespace vllm {

// The best element so far of a part of a row.
struct Choice {
  double score = -std::numeric_limits<double>::infinity();
  double noise = -std::numeric_limits<double>::infinity();  // decides between equal scores
  int64_t index = 0;
  bool nan = false;  // index is that of the first NaN, which wins over all

  // Merges the choice of a later part of the row.
  void Merge(const Choice& later) {
    if (nan) return;
    if (later.nan || later.score > score || (later.score == score && later.noise > noise))
      *this = later;
  }
};

// Rows that are cut into `chunks` chunks of `size` elements; the last one is shorter.
struct Chunks {
  int64_t size = 0;
  int64_t chunks = 0;
};

// Updates `best` with elements [first, first + n), whose logits are given: by logit, or by logit
// plus noise. n is a multiple of 8 or the rest of the row; first is a multiple of 8.
void ScanLogits(const float* logits, int64_t first, int64_t n, Choice& best);
void ScanNoisyLogits(const float* logits, int64_t first, int64_t n, uint64_t seed, Choice& best);

// Returns an upper bound of the noise of elements whose 16-bit number is `high`.
double BoundNoise(uint32_t high);

}  // namespace vllm
