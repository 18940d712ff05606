// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm {

// Eight-bit floating-point numbers (Micikevicius et al., arXiv:2209.05433), stored as their code.
// core/fp8-inl.h converts them.

// Four exponent bits, three mantissa bits, no infinity; torch.float8_e4m3fn. On AMD GPUs of CDNA 3
// (gfx940 to gfx942), GPU code takes E4M3 for torch.float8_e4m3fnuz instead, the format of their
// instructions, which core/gpu/types.h describes; the constants below are not those of it.
struct E4M3 {
  static constexpr int kMantissaBits = 3;
  static constexpr int kBias = 7;
  static constexpr float kMax = 448.0f;
  uint8_t code;
};

// Five exponent bits, two mantissa bits, infinity as in IEEE 754; torch.float8_e5m2.
struct E5M2 {
  static constexpr int kMantissaBits = 2;
  static constexpr int kBias = 15;
  static constexpr float kMax = 57344.0f;
  uint8_t code;
};

}  // namespace vllm
