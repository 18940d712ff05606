// SPDX-License-Identifier: Apache-2.0
// Loads eight-bit floating-point numbers as float32 and stores float32 as eight-bit numbers.
// Compiled once for each target.
//
// Stores round to nearest, ties to even, and saturate: numbers beyond the largest finite number,
// and infinity, become that number. NaN stays NaN. Loads are exact; infinity of E5M2 stays
// infinity. A single number is a tail of length one: LoadTail(p, 1), StoreTail(v, p, 1).
#if defined(VLLM_CORE_FP8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_FP8_INL_H_
#undef VLLM_CORE_FP8_INL_H_
#else
#define VLLM_CORE_FP8_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "core/fp8.h"
#include "core/reduce-inl.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Returns codes as the bits of float16 numbers, which have the sign at the same place and an
// exponent of five bits. The exponent of E4M3 is moved to the lower four of them, which divides the
// number by 2^8. D is a tag of int16_t.
template <class D>
HWY_INLINE hn::Vec<D> ToHalfBits(E4M3 /*format*/, D d, hn::Vec<hn::Rebind<uint8_t, D>> codes) {
  const hn::Rebind<int8_t, D> d8;
  // The sign ends up in bits 15 and 14.
  const auto bits = hn::And(hn::ShiftLeft<7>(hn::PromoteTo(d, hn::BitCast(d8, codes))),
                            hn::Set(d, static_cast<int16_t>(0xBFFF)));
  // The largest magnitude, 0x7F, is NaN; in float16, all bits set is NaN.
  const auto nan = hn::Eq(hn::And(bits, hn::Set(d, 0x7FFF)), hn::Set(d, 0x7F << 7));
  return hn::Or(bits, hn::VecFromMask(d, nan));
}

template <class D>
HWY_INLINE hn::Vec<D> ToHalfBits(E5M2 /*format*/, D d, hn::Vec<hn::Rebind<uint8_t, D>> codes) {
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::ShiftLeft<8>(hn::PromoteTo(du, codes)));
}

// Converts float16 numbers from ToHalfBits to float32.
HWY_INLINE VF32 FromHalf(E4M3 /*format*/, hn::Vec<hn::Rebind<hwy::float16_t, F32>> half) {
  return hn::Mul(Promote<hwy::float16_t>(half), hn::Set(F32(), 256.0f));
}

HWY_INLINE VF32 FromHalf(E5M2 /*format*/, hn::Vec<hn::Rebind<hwy::float16_t, F32>> half) {
  return Promote<hwy::float16_t>(half);
}

// The type in which vectors load and store codes; p->code is a single one.
template <class F8>
HWY_INLINE const uint8_t* GetCodes(const F8* p) {
  return reinterpret_cast<const uint8_t*>(p);
}

template <class F8>
HWY_INLINE uint8_t* GetCodes(F8* p) {
  return reinterpret_cast<uint8_t*>(p);
}

template <class F8>
HWY_INLINE VF32 DecodeFp8(hn::Vec<hn::Rebind<uint8_t, F32>> codes) {
  const auto bits = ToHalfBits(F8(), hn::Rebind<int16_t, F32>(), codes);
  return FromHalf(F8(), hn::BitCast(hn::Rebind<hwy::float16_t, F32>(), bits));
}

template <class F8>
HWY_INLINE VF32 LoadFp8(const F8* HWY_RESTRICT p) {
  return DecodeFp8<F8>(hn::LoadU(hn::Rebind<uint8_t, F32>(), GetCodes(p)));
}

template <class F8>
HWY_INLINE VF32 LoadFp8Tail(const F8* HWY_RESTRICT p, size_t n) {
  return DecodeFp8<F8>(hn::LoadN(hn::Rebind<uint8_t, F32>(), GetCodes(p), n));
}

template <class F8>
HWY_INLINE void LoadFp8Two(const F8* HWY_RESTRICT p, VF32& v0, VF32& v1) {
  const hn::Repartition<int16_t, F32> d16;
  const hn::Rebind<hwy::float16_t, F32> dh;
  const auto bits =
      ToHalfBits(F8(), d16, hn::LoadU(hn::Rebind<uint8_t, decltype(d16)>(), GetCodes(p)));
  const auto half = hn::BitCast(hn::Repartition<hwy::float16_t, F32>(), bits);
  v0 = FromHalf(F8(), hn::LowerHalf(dh, half));
  v1 = FromHalf(F8(), hn::UpperHalf(dh, half));
}

// Returns the codes of |v| in lanes of 32 bits, and numbers of 0x7F or more for NaN. Narrowing with
// saturation turns these into 0x7F, the code of NaN.
template <class F8>
HWY_INLINE hn::Vec<hn::RebindToSigned<F32>> EncodeMagnitude(VF32 v) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  constexpr int kShift = 23 - F8::kMantissaBits;
  const VF32 largest = hn::Set(d, F8::kMax);
  const VF32 magnitude = ClampToMax(hn::Abs(v), largest);
  const auto bits = hn::BitCast(di, magnitude);
  // For normal numbers, adds half a unit less one bit, and that bit if the result would otherwise
  // be odd. A carry correctly goes into the exponent.
  const auto odd = hn::And(hn::ShiftRight<kShift>(bits), hn::Set(di, 1));
  constexpr int32_t kRounding = (1 << (kShift - 1)) - 1 - ((127 - F8::kBias) << 23);
  const auto normal = hn::ShiftRight<kShift>(hn::Add(hn::Add(bits, odd), hn::Set(di, kRounding)));
  // For subnormal numbers, adds a power of two at which float32 has the same spacing, so the
  // addition rounds.
  constexpr int32_t kSpacing = (127 + 24 - F8::kBias - F8::kMantissaBits) << 23;
  const auto spacing = hn::Set(di, kSpacing);
  const auto subnormal =
      hn::Sub(hn::BitCast(di, hn::Add(magnitude, hn::BitCast(d, spacing))), spacing);
  const VF32 smallest_normal = hn::BitCast(d, hn::Set(di, (128 - F8::kBias) << 23));
  return hn::IfThenElse(hn::RebindMask(di, hn::Lt(magnitude, smallest_normal)), subnormal, normal);
}

template <class F8>
HWY_INLINE hn::Vec<hn::Rebind<uint8_t, F32>> EncodeFp8(VF32 v) {
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<int8_t, F32> d8;
  const hn::Rebind<uint8_t, F32> du8;
  const auto sign =
      hn::And(hn::BitCast(du8, hn::DemoteTo(d8, hn::BitCast(di, v))), hn::Set(du8, 0x80));
  return hn::Or(hn::BitCast(du8, hn::DemoteTo(d8, EncodeMagnitude<F8>(v))), sign);
}

template <class F8>
HWY_INLINE void StoreFp8(VF32 v, F8* HWY_RESTRICT p) {
  hn::StoreU(EncodeFp8<F8>(v), hn::Rebind<uint8_t, F32>(), GetCodes(p));
}

template <class F8>
HWY_INLINE void StoreFp8Tail(VF32 v, F8* HWY_RESTRICT p, size_t n) {
  hn::StoreN(EncodeFp8<F8>(v), hn::Rebind<uint8_t, F32>(), GetCodes(p), n);
}

// Narrows four vectors of int32 to one of int8, with saturation, in the order of the elements. With
// kSplit, v0 and v2 are even elements and v1 and v3 the odd ones after them, and numbers outside
// int16 are truncated.
template <bool kSplit, class VI>
HWY_INLINE hn::Vec<hn::Repartition<int8_t, F32>> NarrowFour(VI v0, VI v1, VI v2, VI v3) {
  const hn::Repartition<int8_t, F32> d8;
  const hn::Repartition<int16_t, F32> d16;
  if constexpr (kSplit) {
    const auto join = [&](VI even, VI odd) HWY_ATTR {
      return hn::OddEven(hn::BitCast(d16, hn::ShiftLeft<16>(odd)), hn::BitCast(d16, even));
    };
    return hn::OrderedDemote2To(d8, join(v0, v1), join(v2, v3));
  } else {
    return hn::OrderedDemote2To(d8, hn::OrderedDemote2To(d16, v0, v1),
                                hn::OrderedDemote2To(d16, v2, v3));
  }
}

template <bool kSplit, class F8>
HWY_INLINE void StoreFp8Four(VF32 v0, VF32 v1, VF32 v2, VF32 v3, F8* HWY_RESTRICT p) {
  const hn::RebindToSigned<F32> di;
  const hn::Repartition<uint8_t, F32> du8;
  // The sign survives narrowing with saturation, and narrowing all four vectors is cheaper than
  // moving the sign in lanes of 32 bits. With kSplit, the lower half is truncated, which has no
  // sign.
  const auto bits = [&](VF32 v) HWY_ATTR {
    if constexpr (kSplit) {
      return hn::ShiftRight<16>(hn::BitCast(di, v));
    } else {
      return hn::BitCast(di, v);
    }
  };
  const auto signs = NarrowFour<kSplit>(bits(v0), bits(v1), bits(v2), bits(v3));
  // Magnitudes fit into int16, including those for NaN.
  const auto codes = NarrowFour<kSplit>(EncodeMagnitude<F8>(v0), EncodeMagnitude<F8>(v1),
                                        EncodeMagnitude<F8>(v2), EncodeMagnitude<F8>(v3));
  hn::StoreU(hn::Or(hn::BitCast(du8, codes), hn::And(hn::BitCast(du8, signs), hn::Set(du8, 0x80))),
             du8, GetCodes(p));
}

// The functions of simd-inl.h for both formats, so that templates over element types accept them
// too.
HWY_INLINE VF32 Load(const E4M3* HWY_RESTRICT p) { return LoadFp8(p); }
HWY_INLINE VF32 Load(const E5M2* HWY_RESTRICT p) { return LoadFp8(p); }
HWY_INLINE VF32 LoadTail(const E4M3* HWY_RESTRICT p, size_t n) { return LoadFp8Tail(p, n); }
HWY_INLINE VF32 LoadTail(const E5M2* HWY_RESTRICT p, size_t n) { return LoadFp8Tail(p, n); }
HWY_INLINE void Store(VF32 v, E4M3* HWY_RESTRICT p) { StoreFp8(v, p); }
HWY_INLINE void Store(VF32 v, E5M2* HWY_RESTRICT p) { StoreFp8(v, p); }
HWY_INLINE void StoreTail(VF32 v, E4M3* HWY_RESTRICT p, size_t n) { StoreFp8Tail(v, p, n); }
HWY_INLINE void StoreTail(VF32 v, E5M2* HWY_RESTRICT p, size_t n) { StoreFp8Tail(v, p, n); }

// Loads 2 * Lanes(F32()) elements from `p`; half as expensive as two loads.
HWY_INLINE void LoadTwo(const E4M3* HWY_RESTRICT p, VF32& v0, VF32& v1) { LoadFp8Two(p, v0, v1); }
HWY_INLINE void LoadTwo(const E5M2* HWY_RESTRICT p, VF32& v0, VF32& v1) { LoadFp8Two(p, v0, v1); }

// Stores 4 * Lanes(F32()) elements to `p`; much cheaper than four stores. For kSplit see
// NarrowFour.
template <bool kSplit = false>
HWY_INLINE void StoreFour(VF32 v0, VF32 v1, VF32 v2, VF32 v3, E4M3* HWY_RESTRICT p) {
  StoreFp8Four<kSplit>(v0, v1, v2, v3, p);
}
template <bool kSplit = false>
HWY_INLINE void StoreFour(VF32 v0, VF32 v1, VF32 v2, VF32 v3, E5M2* HWY_RESTRICT p) {
  StoreFp8Four<kSplit>(v0, v1, v2, v3, p);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_FP8_INL_H_
