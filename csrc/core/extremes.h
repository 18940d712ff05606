// SPDX-License-Identifier: Apache-2.0
// The larger and the smaller of two floats, on the CPU and in GPU kernels: core/reduce-inl.h says
// which function a kernel takes, and why.
#pragma once

#include <cmath>

#include "core/device.h"

namespace vllm {

// The larger of v and `largest`; NaN in v is left out. `largest` is a number, and so is the result.
VLLM_HOST_DEVICE inline float LargerNumber(float v, float largest) {
#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__)
  return fmaxf(v, largest);  // defined for NaN as above, and one instruction
#else
  // Not the C library's fmaxf, which returns NaN for a signalling NaN.
  return v > largest ? v : largest;
#endif
}

// The smaller of v and `least`; NaN in v is left out. `least` is a number, and so is the result.
VLLM_HOST_DEVICE inline float SmallerNumber(float v, float least) {
#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__)
  return fminf(v, least);
#else
  return v < least ? v : least;
#endif
}

// v, but no more than `high`; NaN stays NaN.
VLLM_HOST_DEVICE inline float AtMost(float v, float high) { return v > high ? high : v; }

// v, but no less than `low`; NaN stays NaN.
VLLM_HOST_DEVICE inline float AtLeast(float v, float low) { return v < low ? low : v; }

}  // namespace vllm
