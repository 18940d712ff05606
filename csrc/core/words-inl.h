// SPDX-License-Identifier: Apache-2.0
// Products of words: two elements of bfloat16 or four of int8, which one instruction multiplies and
// adds up. Compiled once for each target. VLLM_WORDS says whether the target has them.
#if defined(VLLM_CORE_WORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_WORDS_INL_H_
#undef VLLM_CORE_WORDS_INL_H_
#else
#define VLLM_CORE_WORDS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

#include "core/simd-inl.h"

#undef VLLM_WORDS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_ZEN4
#define VLLM_WORDS 1
#else
#define VLLM_WORDS 0
#endif

#if VLLM_WORDS
HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

using U32 = hn::ScalableTag<uint32_t>;
using VU32 = hn::Vec<U32>;

// sum + a * b for words of bfloat16. Subnormal numbers count as zero.
HWY_INLINE VF32 AddBFloat16Words(VU32 a, VU32 b, VF32 sum) {
  const hn::Repartition<hwy::bfloat16_t, F32> d;
  VF32 unused = sum;
  return hn::ReorderWidenMulAccumulate(F32(), hn::BitCast(d, a), hn::BitCast(d, b), sum, unused);
}

// sum + a * b for words of uint8 and int8.
HWY_INLINE hn::Vec<hn::RebindToSigned<F32>> AddInt8Words(VU32 a, VU32 b,
                                                         hn::Vec<hn::RebindToSigned<F32>> sum) {
  return hn::SumOfMulQuadAccumulate(hn::RebindToSigned<F32>(),
                                    hn::BitCast(hn::Repartition<uint8_t, F32>(), a),
                                    hn::BitCast(hn::Repartition<int8_t, F32>(), b), sum);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();
#endif  // VLLM_WORDS

#endif  // VLLM_CORE_WORDS_INL_H_
