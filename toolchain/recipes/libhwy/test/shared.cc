// SPDX-License-Identifier: Apache-2.0
// A kernel that is compiled for every instruction set and dispatched at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "shared.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

float SumOfExp(const float* values, size_t count) {
  const hn::ScalableTag<float> tag;
  auto sum = hn::Zero(tag);
  for (size_t i = 0; i < count; i += hn::Lanes(tag))
    sum = hn::Add(sum, hn::Exp(tag, hn::LoadN(tag, values + i, count - i)));
  return hn::ReduceSum(tag, sum) -
         static_cast<float>((hn::Lanes(tag) - count % hn::Lanes(tag)) % hn::Lanes(tag));
}

const char* Target() { return hwy::TargetName(HWY_TARGET); }
}  // namespace HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
HWY_EXPORT(SumOfExp);
HWY_EXPORT(Target);
float sum_of_exp(const float* values, size_t count) {
  return HWY_DYNAMIC_DISPATCH(SumOfExp)(values, count);
}
const char* target() { return HWY_DYNAMIC_DISPATCH(Target)(); }
#endif
