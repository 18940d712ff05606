// SPDX-License-Identifier: Apache-2.0
// Element types of kernels: conversions to and from float32, and loads and stores of several
// elements at once.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/dtype.h"
#include "core/fp8.h"
#include "core/gpu/gpu.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#elif defined(__HIPCC__)
#include <hip/hip_fp16.h>
#endif

namespace vllm::gpu {

struct Bf16 {
  uint16_t code;
};
struct Fp16 {
  uint16_t code;
};

__device__ __forceinline__ float BitsToFloat(uint32_t bits) {
#if defined(VLLM_GPU_EMULATION)
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#else
  return __uint_as_float(bits);
#endif
}

__device__ __forceinline__ uint32_t FloatToBits(float value) {
#if defined(VLLM_GPU_EMULATION)
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
#else
  return __float_as_uint(value);
#endif
}

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(Bf16 x) {
  return BitsToFloat(static_cast<uint32_t>(x.code) << 16);
}
__device__ __forceinline__ float ToFloat(Fp16 x) {
#if defined(VLLM_GPU_EMULATION)
  return emulation::FloatOfHalf(x.code);
#else
  return __half2float(__ushort_as_half(x.code));
#endif
}

// Rounds to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T FromFloat(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else if constexpr (std::is_same_v<T, Bf16>) {
#if defined(__CUDACC__)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    const uint32_t bits = FloatToBits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
      return {static_cast<uint16_t>(bits >> 16 | 0x40u)};  // NaN stays NaN
    return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
#endif
  } else {
    static_assert(std::is_same_v<T, Fp16>);
#if defined(VLLM_GPU_EMULATION)
    return {emulation::HalfOfFloat(x)};
#else
#if defined(__HIPCC__)
    // Keeps clang from merging a product with its conversion: it would add +0 to the product, so
    // that -0 loses its sign.
    asm("" : "+v"(x));
#endif
    return {__half_as_ushort(__float2half_rn(x))};
#endif
  }
}

// Whether E4M3 is torch.float8_e4m3fnuz on the architecture that is compiled for: a bias of 8, so
// that the largest number is 240, no negative zero, and 0x80 as the only NaN. Host code calls
// HasFnuz of core/gpu/stream.h.
#if defined(VLLM_GPU_EMULATION)
inline constexpr bool kFnuz = emulation::kCapability == 94;
#elif defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__)
inline constexpr bool kFnuz = true;
#else
inline constexpr bool kFnuz = false;
#endif

// Formats of eight bits, of which E4M3 is the first or the second.
struct E4M3Fn {
  static constexpr int kMantissaBits = 3, kBias = 7;
  static constexpr float kMax = 448.0f;
  static constexpr uint32_t kMaxCode = 0x7e, kNaN = 0x7f;
  static constexpr bool kUnsignedZero = false;  // whether zero and NaN have no sign
};
struct E4M3Fnuz {
  static constexpr int kMantissaBits = 3, kBias = 8;
  static constexpr float kMax = 240.0f;
  static constexpr uint32_t kMaxCode = 0x7f, kNaN = 0x80;
  static constexpr bool kUnsignedZero = true;
};
struct E5M2Ieee {
  static constexpr int kMantissaBits = 2, kBias = 15;
  static constexpr float kMax = 57344.0f;
  static constexpr uint32_t kMaxCode = 0x7b, kNaN = 0x7f;
  static constexpr bool kUnsignedZero = false;
};
template <class Q>
using FormatOf = std::conditional_t<std::is_same_v<Q, E5M2>, E5M2Ieee,
                                    std::conditional_t<kFnuz, E4M3Fnuz, E4M3Fn>>;

// The number at which quantisation with a scale of its own puts the largest magnitude. Like
// upstream, e4m3fnuz leaves out its largest number, 240: scales then equal those that the engine
// computes itself (get_fp8_min_max in its quant_utils.py).
template <class Q>
__device__ __forceinline__ constexpr float GetScaledMax() {
  return std::is_same_v<FormatOf<Q>, E4M3Fnuz> ? 224.0f : FormatOf<Q>::kMax;
}

// Returns the code of a number in a format, as ToFp8 does.
template <class Format>
__device__ __forceinline__ uint8_t EncodeFp8(float x) {
  const uint32_t sign = FloatToBits(x) >> 24 & 0x80u;
  const float magnitude = fabsf(x);
  if (!(magnitude == magnitude))
    return static_cast<uint8_t>(Format::kUnsignedZero ? Format::kNaN : sign | Format::kNaN);
  if (magnitude >= Format::kMax) return static_cast<uint8_t>(sign | Format::kMaxCode);
  // Adding and subtracting a number whose unit in the last place is that of the result rounds to
  // it. Below the normal numbers, that unit is the smallest subnormal.
  constexpr int kLeast = 1 - Format::kBias;
  const int found = static_cast<int>(FloatToBits(magnitude) >> 23) - 127;
  const int exponent = found > kLeast ? found : kLeast;
  constexpr int kBits = Format::kMantissaBits;
  const float rounder = BitsToFloat(static_cast<uint32_t>(exponent - kBits + 23 + 127) << 23);
  const float rounded = (magnitude + rounder) - rounder;
  const float unit = BitsToFloat(static_cast<uint32_t>(exponent - kBits + 127) << 23);
  // The mantissa in units of that exponent; a carry into the next unit also carries into the
  // exponent's bits.
  const uint32_t mantissa = static_cast<uint32_t>(rounded / unit);
  const uint32_t code = (static_cast<uint32_t>(exponent - kLeast) << kBits) + mantissa;
  if (Format::kUnsignedZero && code == 0) return 0;
  return static_cast<uint8_t>(sign | code);
}

// Converts to eight-bit floating point, rounded to nearest, ties to even. Numbers beyond the
// largest finite number, and infinities, saturate at it; NaN stays NaN.
template <class Q>
__device__ __forceinline__ Q ToFp8(float x) {
#if defined(__CUDACC__)
  return {
      __nv_cvt_float_to_fp8(x, __NV_SATFINITE, std::is_same_v<Q, E4M3> ? __NV_E4M3 : __NV_E5M2)};
#else
  return {EncodeFp8<FormatOf<Q>>(x)};
#endif
}

// Returns the number of a code in a format.
template <class Format>
__device__ __forceinline__ float DecodeFp8(uint8_t code) {
  // The upper byte of a half is an E5M2 number. E4M3 is a half with a shorter exponent, so a power
  // of two is missing.
  const uint32_t sign = (code & 0x80u) << 24, rest = code & 0x7fu;
  if (std::is_same_v<Format, E4M3Fn> && rest == 0x7fu) return BitsToFloat(0x7fc00000u);
  if (std::is_same_v<Format, E4M3Fnuz> && code == 0x80u) return BitsToFloat(0x7fc00000u);
  if (std::is_same_v<Format, E5M2Ieee> && rest >= 0x7cu)
    return BitsToFloat(sign | (rest == 0x7cu ? 0x7f800000u : 0x7fc00000u));
  // As the top bits of a float32, the exponent is too small by 127 - bias. Multiplying by that
  // power of two also converts subnormals correctly.
  const float value = BitsToFloat(rest << (23 - Format::kMantissaBits)) *
                      BitsToFloat(static_cast<uint32_t>(127 + 127 - Format::kBias) << 23);
  return BitsToFloat(FloatToBits(value) | sign);
}

template <class Q>
__device__ __forceinline__ float FromFp8(Q x) {
  return DecodeFp8<FormatOf<Q>>(x.code);
}

// kCount adjacent elements that are loaded and stored at once: at most 16 bytes, aligned to their
// size.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  static_assert(sizeof(T) * kCount <= 16 && (kCount & (kCount - 1)) == 0);
  T items[kCount];
};

// The number of elements of T in 16 bytes.
template <typename T>
inline constexpr int kPerLoad = 16 / static_cast<int>(sizeof(T));

template <int kCount, typename T>
__device__ __forceinline__ Pack<T, kCount> LoadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <typename T, int kCount>
__device__ __forceinline__ void StorePack(T* to, const Pack<T, kCount>& pack) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

// FromFloat for several numbers; GPUs round two 16-bit numbers in one instruction.
template <typename T, int kCount>
__device__ __forceinline__ Pack<T, kCount> FromFloats(const float (&values)[kCount]) {
  Pack<T, kCount> pack;
#if defined(__CUDACC__)
  if constexpr (!std::is_same_v<T, float> && kCount % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      if constexpr (std::is_same_v<T, Bf16>) {
        const __nv_bfloat162 two = __floats2bfloat162_rn(values[i], values[i + 1]);
        pack.items[i] = {__bfloat16_as_ushort(two.x)};
        pack.items[i + 1] = {__bfloat16_as_ushort(two.y)};
      } else {
        const __half2 two = __floats2half2_rn(values[i], values[i + 1]);
        pack.items[i] = {__half_as_ushort(__low2half(two))};
        pack.items[i + 1] = {__half_as_ushort(__high2half(two))};
      }
    }
  } else
#endif
  {
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.items[i] = FromFloat<T>(values[i]);
  }
  return pack;
}

// 16 bytes of elements as four 32-bit words. An array of 16-bit elements would take a register for
// each.
struct Words {
  uint32_t items[4];
};

template <typename T>
__device__ __forceinline__ Words ToWords(const Pack<T, kPerLoad<T>>& pack) {
  Words words;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      words.items[i] = FloatToBits(pack.items[i]);
    } else {
      words.items[i] = pack.items[2 * i].code | static_cast<uint32_t>(pack.items[2 * i + 1].code)
                                                    << 16;
    }
  }
  return words;
}

template <typename T>
__device__ __forceinline__ Pack<T, kPerLoad<T>> FromWords(const Words& words) {
  Pack<T, kPerLoad<T>> pack;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      pack.items[i] = BitsToFloat(words.items[i]);
    } else {
      pack.items[2 * i] = {static_cast<uint16_t>(words.items[i])};
      pack.items[2 * i + 1] = {static_cast<uint16_t>(words.items[i] >> 16)};
    }
  }
  return pack;
}

// Makes the compiler keep the words as they are. Otherwise it keeps the numbers converted from
// them, which take more registers, instead of converting again.
__device__ __forceinline__ void KeepPacked([[maybe_unused]] Words& words) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+r"(words.items[i]));
#elif defined(__HIP_DEVICE_COMPILE__)
    asm volatile("" : "+v"(words.items[i]));
#endif
  }
}

// Returns whether `bytes` divides an address or a distance.
inline bool IsAligned(const void* address, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) == 0;
}

// Calls `function` with a value of the element type.
template <class F>
void WithType(DType dtype, F&& function) {
  switch (dtype) {
    case DType::kFloat32:
      return function(float());
    case DType::kBFloat16:
      return function(Bf16());
    case DType::kFloat16:
      return function(Fp16());
  }
}

}  // namespace vllm::gpu
