// SPDX-License-Identifier: Apache-2.0
// The larger and the smaller of two vectors, with a defined result for NaN. Compiled once for each
// target.
//
// The result of Highway's Min and Max for NaN depends on the target: x86 returns the second
// operand, Arm a number or NaN, depending on the instruction. A reduction with them keeps or drops
// NaN depending on the target, the order of the operands and the lane. Kernels therefore do not
// call Highway's Min, Max, ReduceMin and ReduceMax, nor fminf and fmaxf, but the functions below
// and those of core/extremes.h, whose names say how they treat NaN:
//
//   LargerNumber, SmallerNumber          ignore NaN: for scales, and for maxima that only shift the
//                                        arguments of exponentials
//   ClampToMax, ClampToMin               keep NaN: for limits
//   LargerOfNumbers, SmallerOfNumbers    for integers, and for floats where the result does not
//                                        matter if one is NaN
//
// tests/kernels/test_not_a_number.py puts NaN into every lane for every target;
// tests/build/test_kernel_sources.py finds other calls.
#if defined(VLLM_CORE_REDUCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_REDUCE_INL_H_
#undef VLLM_CORE_REDUCE_INL_H_
#else
#define VLLM_CORE_REDUCE_INL_H_
#endif

#include "hwy/highway.h"

#include "core/extremes.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// For floats, in addition to those for vectors.
using vllm::ClampToMax;
using vllm::ClampToMin;
using vllm::LargerNumber;
using vllm::SmallerNumber;

// Whether Max and Min are `a > b ? a : b` and `a < b ? a : b` also for NaN and for zeros of both
// signs, as the instructions of x86 are: they return the second operand then.
template <class V>
constexpr bool kSecondIfNan = HWY_ARCH_X86 && hwy::IsFloat<hn::TFromV<V>>();

// Returns the larger of v and `largest`, lane by lane. NaN in v is ignored. `largest` holds
// numbers, so the result does too.
template <class V>
HWY_INLINE V LargerNumber(V v, V largest) {
  return kSecondIfNan<V> ? hn::Max(v, largest) : hn::IfThenElse(hn::Gt(v, largest), v, largest);
}

// Returns the smaller of v and `least`, lane by lane. NaN in v is ignored. `least` holds numbers,
// so the result does too.
template <class V>
HWY_INLINE V SmallerNumber(V v, V least) {
  return kSecondIfNan<V> ? hn::Min(v, least) : hn::IfThenElse(hn::Lt(v, least), v, least);
}

// Returns v limited to at most `high`. NaN stays NaN.
template <class V>
HWY_INLINE V ClampToMax(V v, V high) {
  return kSecondIfNan<V> ? hn::Min(high, v) : hn::IfThenElse(hn::Gt(v, high), high, v);
}

// Returns v limited to at least `low`. NaN stays NaN.
template <class V>
HWY_INLINE V ClampToMin(V v, V low) {
  return kSecondIfNan<V> ? hn::Max(low, v) : hn::IfThenElse(hn::Lt(v, low), low, v);
}

// Return the larger and the smaller of two numbers in one instruction. If one is NaN, the result is
// unspecified, so the caller must not depend on it.
template <class V>
HWY_INLINE V LargerOfNumbers(V a, V b) {
  return hn::Max(a, b);
}
template <class V>
HWY_INLINE V SmallerOfNumbers(V a, V b) {
  return hn::Min(a, b);
}

// Return the largest and the smallest lane, under the same condition as the two functions above.
template <class D, class V>
HWY_INLINE hn::TFromD<D> LargestOfNumbers(D d, V v) {
  return hn::ReduceMax(d, v);
}
template <class D, class V>
HWY_INLINE hn::TFromD<D> SmallestOfNumbers(D d, V v) {
  return hn::ReduceMin(d, v);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_REDUCE_INL_H_
