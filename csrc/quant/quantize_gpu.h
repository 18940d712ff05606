// SPDX-License-Identifier: Apache-2.0
// Shared by quantising GPU kernels: rounding to eight bits, division by a scale.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/extremes.h"
#include "core/gpu/types.h"

namespace vllm::gpu {

// Rounds to the nearest integer, ties to even, with saturation; NaN gives 0.
__device__ __forceinline__ int8_t ToInt8(float x) {
  x = x == x ? x : 0.0f;
  // Near 1.5 * 2^23, float32 numbers are integers: the addition rounds and leaves the integer in
  // the low bits.
  return static_cast<int8_t>(
      FloatToBits(SmallerNumber(LargerNumber(x, -128.0f), 127.0f) + 12582912.0f));
}

// The same for int32.
__device__ __forceinline__ int32_t ToInt32(float x) {
#if defined(VLLM_GPU_EMULATION)
  if (!(x == x)) return 0;
  if (x >= 0x1p31f) return INT32_MAX;
  return x <= -0x1p31f ? INT32_MIN : static_cast<int32_t>(rintf(x));
#else
  return x == x ? __float2int_rn(x) : 0;
#endif
}

// Converts numbers to codes of Q: E4M3, E5M2 or int8_t.
template <class Q, int kCount>
__device__ __forceinline__ Pack<Q, kCount> ToCodes(const float (&values)[kCount]) {
  Pack<Q, kCount> codes;
  if constexpr (std::is_same_v<Q, int8_t>) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) codes.items[j] = ToInt8(values[j]);
#if defined(__CUDACC__)
  } else if constexpr (kCount % 2 == 0) {
    // Converts two numbers in one instruction.
#pragma unroll
    for (int j = 0; j < kCount; j += 2) {
      const __nv_fp8x2_storage_t two =
          __nv_cvt_float2_to_fp8x2(make_float2(values[j], values[j + 1]), __NV_SATFINITE,
                                   std::is_same_v<Q, E4M3> ? __NV_E4M3 : __NV_E5M2);
      codes.items[j] = {static_cast<uint8_t>(two)};
      codes.items[j + 1] = {static_cast<uint8_t>(two >> 8)};
    }
#endif
  } else {
#pragma unroll
    for (int j = 0; j < kCount; ++j) codes.items[j] = ToFp8<Q>(values[j]);
  }
  return codes;
}

// Quotients for quantisation: correctly rounded wherever it affects rounding to eight bits,
// including the signs of zeros, infinities and NaN.
//
// They are computed from the divisor's reciprocal: the first product is within a unit, its
// remainder is exact with a fused multiply-add, and the correction rounds as a division does
// (Markstein, IBM Journal of Research and Development 34(1), 1990). For divisors far from the
// limits of float32, this holds for quotients down to 2^-20. Quotients above 2^24 saturate anyway
// and are not corrected, because their remainder may overflow.
class Divide {
 public:
  __device__ __forceinline__ explicit Divide(float divisor)
      : divisor_(divisor),
        reciprocal_(1.0f / divisor),
        common_(divisor >= 0x1p-60f && divisor <= 0x1p60f) {}

  __device__ __forceinline__ float operator()(float x) const {
    if (!common_) return x / divisor_;
    const float quotient = x * reciprocal_;
    // The remainder is negated, so that the quotient of a zero keeps the zero's sign.
    const float corrected = fmaf(-fmaf(quotient, divisor_, -x), reciprocal_, quotient);
    return fabsf(quotient) < 0x1p24f ? corrected : quotient;
  }

 private:
  float divisor_, reciprocal_;
  bool common_;
};

// Returns the maximum of `largest` and the magnitudes of a pack, ignoring NaN.
template <typename T, int kCount>
__device__ __forceinline__ float FindLargestMagnitude(const Pack<T, kCount>& items, float largest) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) largest = LargerNumber(fabsf(ToFloat(items.items[j])), largest);
  return largest;
}

// Returns the codes of a pack whose numbers f transforms.
template <class Q, typename T, int kCount, class F>
__device__ __forceinline__ Pack<Q, kCount> EncodeTransformed(const Pack<T, kCount>& items,
                                                             const F& f) {
  float values[kCount];
#pragma unroll
  for (int j = 0; j < kCount; ++j) values[j] = f(ToFloat(items.items[j]));
  return ToCodes<Q>(values);
}

class Times {
 public:
  __device__ __forceinline__ explicit Times(float factor) : factor_(factor) {}
  __device__ __forceinline__ float operator()(float x) const { return x * factor_; }

 private:
  float factor_;
};

// The scale of a row or group whose largest magnitude is `largest` (ignoring NaN), with an optional
// bound; and the division of numbers by it.
template <class Q>
struct RowScale {
  using Division = std::conditional_t<std::is_same_v<Q, int8_t>, Times, Divide>;

  __device__ __forceinline__ RowScale(float largest, const float* bound)
      : scale(ComputeScale(bound == nullptr ? largest : SmallerNumber(*bound, largest))),
        divide(MakeDivision(scale)) {}

  float scale;
  Division divide;

 private:
  static __device__ __forceinline__ float ComputeScale(float largest) {
    if constexpr (std::is_same_v<Q, int8_t>) {
      return LargerNumber(largest / 127.0f, 0x1p-23f);
    } else {
      constexpr float kMax = GetScaledMax<Q>();
      return LargerNumber(largest / kMax, 1.0f / (kMax * 512.0f));
    }
  }
  static __device__ __forceinline__ Division MakeDivision(float scale) {
    if constexpr (std::is_same_v<Q, int8_t>) {
      return Times(1.0f / scale);
    } else {
      return Divide(scale);
    }
  }
};

// Calls `function` with a code of the type.
template <class F>
void WithFp8(QType type, F&& function) {
  if (type == QType::kE4M3) return function(E4M3());
  function(E5M2());
}
template <class F>
void WithCode(QType type, F&& function) {
  if (type == QType::kInt8) return function(int8_t());
  WithFp8(type, function);
}

}  // namespace vllm::gpu
