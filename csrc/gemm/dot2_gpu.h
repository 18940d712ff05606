// SPDX-License-Identifier: Apache-2.0
// Dot products of pairs of 16-bit numbers in float32: one instruction where the architecture has
// it. A word is a pair, the first element in the lower half.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/gpu/types.h"

// Clang defines these macros for the architecture that it compiles for.
#if defined(__gfx906__) || defined(__gfx908__) || defined(__gfx90a__) || defined(__gfx942__) ||    \
    defined(__gfx950__) || defined(__gfx1011__) || defined(__gfx1012__) || defined(__gfx1030__) || \
    defined(__gfx1031__) || defined(__gfx1032__) || defined(__gfx1033__) ||                        \
    defined(__gfx1034__) || defined(__gfx1035__) || defined(__gfx1036__) || defined(__GFX11__) ||  \
    defined(__GFX12__)
#define VLLM_HAS_DOT2_F16 1
#else
#define VLLM_HAS_DOT2_F16 0
#endif
#if defined(__gfx950__) || defined(__GFX11__) || defined(__GFX12__)
#define VLLM_HAS_DOT2_BF16 1
#else
#define VLLM_HAS_DOT2_BF16 0
#endif

namespace vllm::gpu {

// Whether Dot2 is an instruction; otherwise it is two multiplications and additions.
template <typename T>
inline constexpr bool kHasDot2 = std::is_same_v<T, Fp16> ? VLLM_HAS_DOT2_F16 : VLLM_HAS_DOT2_BF16;

template <typename T>
__device__ __forceinline__ float LowToFloat(uint32_t pair) {
  return ToFloat(T{static_cast<uint16_t>(pair)});
}
template <typename T>
__device__ __forceinline__ float HighToFloat(uint32_t pair) {
  return ToFloat(T{static_cast<uint16_t>(pair >> 16)});
}
// The upper half of a float32 is the bfloat16, so that one instruction converts either half.
template <>
__device__ __forceinline__ float HighToFloat<Bf16>(uint32_t pair) {
  return BitsToFloat(pair & 0xffff0000u);
}

// Returns sum + a.low * b.low + a.high * b.high.
template <typename T>
__device__ __forceinline__ float Dot2(uint32_t a, uint32_t b, float sum) {
#if defined(__HIP_DEVICE_COMPILE__) && VLLM_HAS_DOT2_F16
  if constexpr (std::is_same_v<T, Fp16>) {
    typedef _Float16 Half2 __attribute__((ext_vector_type(2)));
    return __builtin_amdgcn_fdot2(__builtin_bit_cast(Half2, a), __builtin_bit_cast(Half2, b), sum,
                                  false);
  }
#endif
#if defined(__HIP_DEVICE_COMPILE__) && VLLM_HAS_DOT2_BF16
  if constexpr (std::is_same_v<T, Bf16>) {
    typedef __bf16 Bf2 __attribute__((ext_vector_type(2)));
    return __builtin_amdgcn_fdot2_f32_bf16(__builtin_bit_cast(Bf2, a), __builtin_bit_cast(Bf2, b),
                                           sum, false);
  }
#endif
  sum = fmaf(LowToFloat<T>(a), LowToFloat<T>(b), sum);
  sum = fmaf(HighToFloat<T>(a), HighToFloat<T>(b), sum);
#if defined(__HIP_DEVICE_COMPILE__)
  // Otherwise the compiler makes vectors of sums, and needs all their operands in pairs of
  // registers: more than there are.
  asm("" : "+v"(sum));
#endif
  return sum;
}

// Makes the compiler keep the pair as it is. Otherwise it keeps converted numbers, twice as many
// registers, from one step to the next.
__device__ __forceinline__ void KeepPair([[maybe_unused]] uint32_t& pair) {
#if defined(__HIP_DEVICE_COMPILE__)
  asm("" : "+v"(pair));
#endif
}

// Makes the compiler finish what comes before, as far as arithmetic goes. Otherwise it converts all
// pairs of a long sequence first.
__device__ __forceinline__ void FinishStep() {
#if defined(__HIP_DEVICE_COMPILE__)
  __builtin_amdgcn_sched_barrier(0);
#endif
}

// Pairs of float16: a * b and a + b, each rounded.
__device__ __forceinline__ uint32_t MultiplyHalves(uint32_t a, uint32_t b) {
#if defined(__HIP_DEVICE_COMPILE__)
  typedef _Float16 Half2 __attribute__((ext_vector_type(2)));
  return __builtin_bit_cast(uint32_t, __builtin_bit_cast(Half2, a) * __builtin_bit_cast(Half2, b));
#else
  const auto low = FromFloat<Fp16>(LowToFloat<Fp16>(a) * LowToFloat<Fp16>(b)).code;
  const auto high = FromFloat<Fp16>(HighToFloat<Fp16>(a) * HighToFloat<Fp16>(b)).code;
  return low | static_cast<uint32_t>(high) << 16;
#endif
}
__device__ __forceinline__ uint32_t AddHalves(uint32_t a, uint32_t b) {
#if defined(__HIP_DEVICE_COMPILE__)
  typedef _Float16 Half2 __attribute__((ext_vector_type(2)));
  return __builtin_bit_cast(uint32_t, __builtin_bit_cast(Half2, a) + __builtin_bit_cast(Half2, b));
#else
  const auto low = FromFloat<Fp16>(LowToFloat<Fp16>(a) + LowToFloat<Fp16>(b)).code;
  const auto high = FromFloat<Fp16>(HighToFloat<Fp16>(a) + HighToFloat<Fp16>(b)).code;
  return low | static_cast<uint32_t>(high) << 16;
#endif
}

}  // namespace vllm::gpu
