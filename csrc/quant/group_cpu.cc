// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cmath>
#include <cstdint>

#include "quant/group.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/group_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Converts the quotient to its stored form. Like upstream, truncates towards zero for int8, as in
// C.
template <typename Q, class Divide>
struct Quotient {
  Divide divide;
  float low, high;
  HWY_INLINE VF32 operator()(VF32 v) const {
    const VF32 quotient =
        ClampToMax(ClampToMin(divide(v), hn::Set(F32(), low)), hn::Set(F32(), high));
    if constexpr (hwy::IsSame<Q, int8_t>()) {
      return hn::Trunc(quotient);
    } else {
      return quotient;
    }
  }
};

float ChooseScale(float largest, const GroupQuantization& how) {
  const float scale = LargerNumber(how.epsilon, largest) / how.high;
  // The result of frexp for infinity is unspecified.
  if (!how.power_of_two || std::isinf(scale)) return scale;
  int exponent;
  const float fraction = std::frexp(LargerNumber(std::fabs(scale), 1e-10f), &exponent);
  return std::ldexp(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
}

// Quantises groups [begin, end), numbered across rows.
template <typename T, typename Q>
HWY_NOINLINE void QuantizeGroups(const Rows& out, const Rows& input, const GroupScales& scales,
                                 const GroupQuantization& how, int64_t begin, int64_t end) {
  const int64_t groups = input.width / how.size;
  const size_t size = static_cast<size_t>(how.size);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index / groups, group = index % groups;
    const T* x = input.Row<T>(row) + group * how.size;
    Q* to = out.Row<Q>(row) + group * how.size;
    const float largest = FindRowAbsMax(x, size);
    const float scale = ChooseScale(largest, how);
    scales.rows.Row<float>(row)[group * scales.column_stride] = scale;
    WithDivision(scale, largest, [&](auto divide) HWY_ATTR {
      QuantizeSpan(Mapped(x, Quotient<Q, decltype(divide)>{divide, how.low, how.high}), to, size);
    });
  }
}

void QuantizeGroupRange(const Rows& out, QType type, const Rows& input, const GroupScales& scales,
                        const GroupQuantization& how, int64_t begin, int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    WithCode(type, [&](auto code) HWY_ATTR {
      QuantizeGroups<decltype(element), decltype(code)>(out, input, scales, how, begin, end);
    });
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(QuantizeGroupRange);

void QuantizeRowGroups(const Rows& out, QType type, const Rows& input, const GroupScales& scales,
                       const GroupQuantization& how) {
  auto& function = VLLM_CPU_DISPATCH(QuantizeGroupRange);
  ParallelFor(input.count * (input.width / how.size), how.size, [&](int64_t begin, int64_t end) {
    function(out, type, input, scales, how, begin, end);
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
