// SPDX-License-Identifier: Apache-2.0
// What the translated pseudo-code of instructions calls: parts of operands, conversions, and the
// functions that AMD's documents use by name. Operands are unsigned integers that hold bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace gfx {

using Half = _Float16;
inline constexpr double INF = std::numeric_limits<double>::infinity();

template <typename To, typename From>
To CopyBits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

struct BFloat {
  uint16_t bits;
  operator float() const { return CopyBits<float>(uint32_t{bits} << 16); }
};

// The bits of a value: of a number its representation, of bits themselves.
inline uint64_t Raw(float value) { return CopyBits<uint32_t>(value); }
inline uint64_t Raw(double value) { return CopyBits<uint64_t>(value); }
inline uint64_t Raw(Half value) { return CopyBits<uint16_t>(value); }
inline uint64_t Raw(BFloat value) { return value.bits; }
template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
uint64_t Raw(T value) {
  return static_cast<uint64_t>(value);
}

template <int kBits>
constexpr uint64_t kMask = kBits == 64 ? ~uint64_t{0} : (uint64_t{1} << (kBits & 63)) - 1;

// The low bits of a value as a T.
template <typename T, int kBits, typename From>
T As(From value) {
  const uint64_t bits = Raw(value) & kMask<kBits>;
  if constexpr (std::is_same_v<T, BFloat>) {
    return {static_cast<uint16_t>(bits)};
  } else if constexpr (std::is_same_v<T, Half>) {
    return CopyBits<Half>(static_cast<uint16_t>(bits));
  } else if constexpr (std::is_same_v<T, float>) {
    return CopyBits<float>(static_cast<uint32_t>(bits));
  } else if constexpr (std::is_same_v<T, double>) {
    return CopyBits<double>(bits);
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<T>(static_cast<int64_t>(bits << (64 - kBits)) >> (64 - kBits));
  } else {
    return static_cast<T>(bits);
  }
}

// The value as a T of that many bits: converts numbers.
template <typename T, int kBits, typename From>
T Convert(From value) {
  if constexpr (std::is_same_v<T, From>) {
    return value;
  } else if constexpr (std::is_same_v<T, BFloat>) {
    const auto bits = static_cast<uint32_t>(Raw(static_cast<float>(value)));
    if (value != value) return {0x7fc0};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  } else if constexpr (std::is_integral_v<T>) {
    return As<T, kBits>(static_cast<std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>(
        static_cast<T>(value)));
  } else {
    return static_cast<T>(value);
  }
}

// Assigns the low bits of `target`, and keeps the others.
template <typename T, int kBits, typename Target, typename From>
void Put(Target& target, From value) {
  const uint64_t bits = Raw(Convert<T, kBits>(value)) & kMask<kBits>;
  target = static_cast<Target>((static_cast<uint64_t>(target) & ~kMask<kBits>) | bits);
}

inline uint64_t ReverseBits(uint64_t value, int count) {
  uint64_t reversed = 0;
  for (int i = 0; i < count; ++i) reversed |= (value >> i & 1) << (count - 1 - i);
  return reversed;
}

// Bits `high` to `low`; in reverse order if `low` is the higher number.
template <typename From>
uint64_t Slice(From value, int high, int low) {
  if (high < low) return ReverseBits(Raw(value) >> high, low - high + 1);
  const int count = high - low + 1;
  return Raw(value) >> low & (count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1);
}
template <typename From>
uint32_t Bit(From value, int place) {
  return static_cast<uint32_t>(Raw(value) >> (place & 63) & 1);
}
template <typename Target, typename From>
void PutSlice(Target& target, int high, int low, From value) {
  const int count = high - low + 1;
  const uint64_t mask = (count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << low;
  target =
      static_cast<Target>((static_cast<uint64_t>(target) & ~mask) | (Raw(value) << low & mask));
}
inline uint64_t Join(uint32_t high, uint32_t low) { return uint64_t{high} << 32 | low; }

// A shift by all bits or more leaves nothing, or the sign.
template <typename T, typename Count>
T ShiftLeft(T value, Count count) {
  using Unsigned = std::make_unsigned_t<T>;
  return static_cast<uint64_t>(count) >= 8 * sizeof(T)
             ? T{0}
             : static_cast<T>(static_cast<Unsigned>(value) << static_cast<unsigned>(count));
}
template <typename T, typename Count>
T ShiftRight(T value, Count count) {
  if (static_cast<uint64_t>(count) < 8 * sizeof(T))
    return static_cast<T>(value >> static_cast<unsigned>(count));
  return std::is_signed_v<T> && value < 0 ? static_cast<T>(-1) : T{0};
}

inline double fma(double a, double b, double c) { return std::fma(a, b, c); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline Half fma(Half a, Half b, Half c) {
  // A product of two 11-bit significands is exact in double, and so is nearly every sum.
  return static_cast<Half>(double{a} * double{b} + double{c});
}
inline float sqrt(float x) { return static_cast<float>(std::sqrt(static_cast<double>(x))); }
inline float log2(float x) { return static_cast<float>(std::log2(static_cast<double>(x))); }
inline float exp2(float x) { return static_cast<float>(std::exp2(static_cast<double>(x))); }
template <typename T>
T trunc(T x) {
  return static_cast<T>(std::trunc(static_cast<double>(x)));
}
template <typename T>
T floor(T x) {
  return static_cast<T>(std::floor(static_cast<double>(x)));
}
template <typename T>
T abs(T x) {
  return x < T(0) || std::signbit(static_cast<double>(x)) ? -x : x;
}
template <typename T>
bool isNAN(T x) {
  return x != x;
}
// A conversion to double makes a signalling NaN quiet, so the pseudo-code's tests for the kind of
// NaN see none that signals. Results differ only in which NaN they are.
inline bool isSignalNAN(double) { return false; }
inline bool isQuietNAN(double x) { return x != x; }
inline double cvtToQuietNAN(double x) { return x; }
template <typename T>
uint32_t sign(T x) {
  return std::signbit(static_cast<double>(x)) ? 1 : 0;
}
// The exponent's bits.
inline int exponent(Half x) { return static_cast<int>(Raw(x) >> 10 & 31); }
inline int exponent(float x) { return static_cast<int>(Raw(x) >> 23 & 255); }
inline int exponent(double x) { return static_cast<int>(Raw(x) >> 52 & 2047); }
inline double mantissa(double x) {
  int unused = 0;
  return std::frexp(x, &unused);
}

template <typename T>
int64_t signext(T value) {
  return static_cast<int64_t>(value);
}
template <typename T>
T signext_from_bit(T value, uint32_t bits) {
  const unsigned shift = 8 * sizeof(T) - bits;
  if (bits == 0) return T{0};
  return bits >= 8 * sizeof(T) ? value : static_cast<T>(ShiftLeft(value, shift) >> shift);
}

inline float f16_to_f32(Half x) { return static_cast<float>(x); }
inline Half f32_to_f16(float x) { return static_cast<Half>(x); }
inline float bf16_to_f32(BFloat x) { return CopyBits<float>(uint32_t{x.bits} << 16); }
inline float u32_to_f32(uint32_t x) { return static_cast<float>(x); }
inline float i32_to_f32(int32_t x) { return static_cast<float>(x); }
inline double u32_to_f64(uint32_t x) { return x; }
inline double i32_to_f64(int32_t x) { return x; }
inline double f32_to_f64(float x) { return x; }
inline float f64_to_f32(double x) { return static_cast<float>(x); }
// Numbers beyond the type's range give its nearest value, and NaN gives zero.
template <typename T>
T Saturate(double x) {
  if (x != x) return 0;
  const double low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
  return x <= low ? std::numeric_limits<T>::min()
                  : (x >= high ? std::numeric_limits<T>::max() : static_cast<T>(x));
}
inline int32_t f32_to_i32(float x) { return Saturate<int32_t>(x); }
inline uint32_t f32_to_u32(float x) { return Saturate<uint32_t>(x); }
inline int32_t f64_to_i32(double x) { return Saturate<int32_t>(x); }
inline uint32_t f64_to_u32(double x) { return Saturate<uint32_t>(x); }

// A NaN gives the other operand, and +0 is greater than -0.
inline float v_max_f32(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
}
inline float v_min_f32(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
inline float v_max_num_f32(float a, float b) { return v_max_f32(a, b); }
inline float v_min_num_f32(float a, float b) { return v_min_f32(a, b); }
inline float v_max3_f32(float a, float b, float c) { return v_max_f32(v_max_f32(a, b), c); }
inline float v_min3_f32(float a, float b, float c) { return v_min_f32(v_min_f32(a, b), c); }
inline uint32_t v_max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }
inline uint32_t v_min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
inline int32_t v_max_i32(int32_t a, int32_t b) { return a > b ? a : b; }
inline int32_t v_min_i32(int32_t a, int32_t b) { return a < b ? a : b; }
inline float Median(float a, float b, float c) {
  if (a != a || b != b || c != c) return v_min3_f32(a, b, c);
  const float most = v_max3_f32(a, b, c);
  if (most == a) return v_max_f32(b, c);
  return most == b ? v_max_f32(a, c) : v_max_f32(a, b);
}

// The steps of a division whose quotient is computed by multiplications: numbers near the limits
// are scaled, and the last step sets the results of infinities, zeros and NaN.
inline float ScaleForDivision(float value, float divisor, float dividend, uint32_t* scaled) {
  *scaled = 0;
  const auto is_denormal = [](double x, double least) { return x != 0 && std::fabs(x) < least; };
  constexpr double kLeast = std::numeric_limits<float>::min();
  constexpr double kLeastDouble = std::numeric_limits<double>::min();
  if (dividend == 0 || divisor == 0) return std::numeric_limits<float>::quiet_NaN();
  const double inverse = 1.0 / static_cast<double>(divisor);
  if (exponent(dividend) - exponent(divisor) >= 96) {
    *scaled = 1;
    return Raw(value) == Raw(divisor) ? std::ldexp(value, 64) : value;
  }
  if (is_denormal(divisor, kLeast)) return std::ldexp(value, 64);
  const bool small = is_denormal(static_cast<double>(dividend) / divisor, kLeast);
  if (is_denormal(inverse, kLeastDouble) && small) {
    *scaled = 1;
    return Raw(value) == Raw(divisor) ? std::ldexp(value, 64) : value;
  }
  if (is_denormal(inverse, kLeastDouble)) return std::ldexp(value, -64);
  if (small) {
    *scaled = 1;
    return Raw(value) == Raw(dividend) ? std::ldexp(value, 64) : value;
  }
  return exponent(dividend) <= 23 ? std::ldexp(value, 64) : value;
}
inline float FixDivision(float quotient, float divisor, float dividend) {
  const bool negative = std::signbit(divisor) != std::signbit(dividend);
  const auto with_sign = [&](float x) { return std::copysign(x, negative ? -1.0f : 1.0f); };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (dividend != dividend) return dividend;
  if (divisor != divisor) return divisor;
  const bool both_zero = divisor == 0 && dividend == 0;
  if (both_zero || (std::isinf(divisor) && std::isinf(dividend)))
    return std::numeric_limits<float>::quiet_NaN();
  if (divisor == 0 || std::isinf(dividend)) return with_sign(kInfinity);
  if (std::isinf(divisor) || dividend == 0) return with_sign(0.0f);
  if (exponent(dividend) - exponent(divisor) < -150) return with_sign(0.0f);
  return with_sign(std::fabs(quotient));
}

// Byte `selector` of eight, or a sign, or a constant.
inline uint32_t PermuteByte(uint64_t data, uint32_t selector) {
  const auto sign_of = [&](int byte) { return data >> (8 * byte + 7) & 1 ? 0xffu : 0u; };
  if (selector >= 13) return 0xff;
  if (selector == 12) return 0;
  if (selector >= 8) return sign_of(2 * static_cast<int>(selector - 8) + 1);
  return static_cast<uint32_t>(data >> (8 * selector) & 0xff);
}
inline uint32_t PermuteBytes(uint32_t high, uint32_t low, uint32_t selectors) {
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i)
    result |= PermuteByte(Join(high, low), selectors >> (8 * i) & 0xff) << (8 * i);
  return result;
}

}  // namespace gfx
