// SPDX-License-Identifier: Apache-2.0
// Element-by-element computations that must not depend on the instruction set: float64 and the C
// library's logarithm.
#include "sampling/choice.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "sampling/philox.h"

namespace vllm {
namespace {

constexpr double kLog2 = 0.69314718055994530942;

// Returns -log(-log(1 - c)) for c = (high * 2^32 + low + 1/2) / 2^48.
double ComputeGumbelNoise(uint32_t high, uint32_t low) {
  const double c = (static_cast<double>((uint64_t{high} << 32) + low) + 0.5) * 0x1p-48;
  return -std::log(-std::log1p(-c));
}

bool IsFirstNaN(float logit, int64_t index, Choice& best) {
  if (!std::isnan(logit)) return false;
  best.index = index;
  best.nan = true;
  return true;
}

}  // namespace

double BoundNoise(uint32_t high) {
  // -log(-log(1 - c)) <= -log(c), because -log(1 - c) >= c; and c >= high / 2^16, or half of 2^-48.
  if (high == 0) return 34.0;
  // The bits of a number, read as an integer, are its logarithm with a linearly interpolated
  // mantissa, which never exceeds the logarithm.
  const float number = static_cast<float>(high);
  int32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  return 16 * kLog2 + 1e-9 - kLog2 * (static_cast<double>(bits) * 0x1p-23 - 127);
}

void ScanLogits(const float* logits, int64_t first, int64_t n, Choice& best) {
  for (int64_t i = 0; i < n; ++i) {
    if (IsFirstNaN(logits[i], first + i, best)) return;
    if (static_cast<double>(logits[i]) > best.score) {
      best.score = static_cast<double>(logits[i]);
      best.index = first + i;
    }
  }
}

void ScanNoisyLogits(const float* logits, int64_t first, int64_t n, uint64_t seed, Choice& best) {
  for (int64_t i = 0; i < n; i += 8) {
    const uint64_t group = static_cast<uint64_t>(first + i) / 8;
    const auto words = RunPhilox(seed, group, 0);
    for (int64_t j = 0; j < std::min<int64_t>(8, n - i); ++j) {
      const float logit = logits[i + j];
      const int64_t index = first + i + j;
      if (IsFirstNaN(logit, index, best)) return;
      const uint32_t high = words[j / 2] >> (j % 2 * 16) & 0xFFFF;
      if (std::isinf(logit) && logit < 0) continue;
      if (static_cast<double>(logit) + BoundNoise(high) < best.score) continue;
      const auto low = RunPhilox(seed, static_cast<uint64_t>(index) / 4, 1);
      const double noise = ComputeGumbelNoise(high, low[index % 4]);
      const double score = static_cast<double>(logit) + noise;
      if (score > best.score || (score == best.score && noise > best.noise))
        best = {score, noise, index, false};
    }
  }
}

}  // namespace vllm
