// SPDX-License-Identifier: Apache-2.0
// The larger and the smaller of two vectors, with a defined result for NaN. Compiled once for each
// target.
//
// Highway's Min and Max leave the result for NaN to the target: x86 returns the second operand, Arm
// a number or NaN, depending on the instruction. A reduction by them keeps or drops NaN depending
// on the target, the operands' order and the lane. Kernels therefore do not call Min, Max,
// ReduceMin or ReduceMax of Highway, nor fminf and fmaxf, but the functions below and those of
// core/extremes.h, whose names say what becomes of NaN:
//
//   LargerNumber, SmallerNumber         NaN is left out: scales, and maxima that only shift the
//   arguments of exponentials AtMost, AtLeast                     NaN stays NaN: limits
//   LargerOfNumbers, SmallerOfNumbers   for integers, and for floats where the result does not
//   matter if one is NaN
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

// Of floats, beside those of vectors.
using vllm::AtLeast;
using vllm::AtMost;
using vllm::LargerNumber;
using vllm::SmallerNumber;

// The larger of v and `largest`, lane by lane; NaN in v is left out. `largest` holds numbers, and
// so does the result.
template <class V>
HWY_INLINE V LargerNumber(V v, V largest) {
  return hn::IfThenElse(hn::Gt(v, largest), v, largest);
}

// The smaller of v and `least`, lane by lane; NaN in v is left out. `least` holds numbers, and so
// does the result.
template <class V>
HWY_INLINE V SmallerNumber(V v, V least) {
  return hn::IfThenElse(hn::Lt(v, least), v, least);
}

// v, but no more than `high`; NaN stays NaN.
template <class V>
HWY_INLINE V AtMost(V v, V high) {
  return hn::IfThenElse(hn::Gt(v, high), high, v);
}

// v, but no less than `low`; NaN stays NaN.
template <class V>
HWY_INLINE V AtLeast(V v, V low) {
  return hn::IfThenElse(hn::Lt(v, low), low, v);
}

// The larger and the smaller of two in one instruction. If one is NaN the result may be anything,
// so the caller must not depend on it.
template <class V>
HWY_INLINE V LargerOfNumbers(V a, V b) {
  return hn::Max(a, b);
}
template <class V>
HWY_INLINE V SmallerOfNumbers(V a, V b) {
  return hn::Min(a, b);
}

// The largest and the smallest lane, under the same condition as the two above.
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
