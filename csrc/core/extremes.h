// SPDX-License-Identifier: Apache-2.0
// The larger and the smaller of two floats, on the CPU and in GPU kernels. core/reduce-inl.h says
// when to use which function.
#pragma once

#include <cmath>

#include "core/device.h"

namespace vllm {

// Returns the larger of v and `largest`. NaN in v is ignored. `largest` is a number, so the result
// is one too.
VLLM_HOST_DEVICE inline float LargerNumber(float v, float largest) {
#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__)
  return fmaxf(v, largest);  // ignores NaN as required, in one instruction
#else
  // Not the C library's fmaxf, which returns NaN for a signalling NaN.
  return v > largest ? v : largest;
#endif
}

// Returns the smaller of v and `least`. NaN in v is ignored. `least` is a number, so the result is
// one too.
VLLM_HOST_DEVICE inline float SmallerNumber(float v, float least) {
#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__)
  return fminf(v, least);
#else
  return v < least ? v : least;
#endif
}

// Returns v limited to at most `high`. NaN stays NaN.
VLLM_HOST_DEVICE inline float ClampToMax(float v, float high) { return v > high ? high : v; }

// Returns v limited to at least `low`. NaN stays NaN.
VLLM_HOST_DEVICE inline float ClampToMin(float v, float low) { return v < low ? low : v; }

}  // namespace vllm
