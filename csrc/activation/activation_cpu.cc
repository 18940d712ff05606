// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>

#include "activation/activation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "activation/activation_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "activation/activation-inl.h"
#include "core/span-inl.h"
#include "core/with_type-inl.h"
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Calls f(row, column, n) for the parts of rows that hold output elements [begin, end), which are
// numbered across rows.
template <class F>
HWY_INLINE void ForParts(const Rows& out, int64_t begin, int64_t end, const F& f) {
  while (begin < end) {
    const int64_t column = begin % out.width;
    const int64_t n = std::min(end - begin, out.width - column);
    f(begin / out.width, column, static_cast<size_t>(n));
    begin += n;
  }
}

template <typename T, class F>
HWY_NOINLINE void ApplyToElements(const F& f, const Rows& out, const Rows& input, int64_t begin,
                                  int64_t end) {
  const bool stream = ShouldStream<T>(out) && out.data != input.data;
  ForParts(out, begin, end, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
    WriteSpan(Elements<T, F>{input.Row<T>(row) + column, f}, out.Row<T>(row) + column, n, stream);
  });
  if (stream) hwy::FlushStream();
}

template <typename T, class F>
HWY_NOINLINE void ApplyToGates(const F& f, Layout layout, const Rows& out, const Rows& input,
                               int64_t begin, int64_t end) {
  const bool stream = ShouldStream<T>(out);
  ForParts(out, begin, end, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
    const T* x = input.Row<T>(row);
    T* HWY_RESTRICT to = out.Row<T>(row) + column;
    const T* first = x + column;
    const T* second = first + out.width;
    switch (layout) {
      case Layout::kGateFirst:
        return WriteSpan(GatedHalves<T, F>{first, second, f}, to, n, stream);
      case Layout::kGateLast:
        return WriteSpan(GatedHalves<T, F>{second, first, f}, to, n, stream);
      case Layout::kInterleaved:
        return WriteSpan(GatedPairs<T, F>{x + 2 * column, f}, to, n, stream);
    }
  });
  if (stream) hwy::FlushStream();
}

template <typename T>
void ActivateElements(Activation activation, const Rows& out, const Rows& input, int64_t begin,
                      int64_t end) {
  switch (activation) {
    case Activation::kSilu:
      return ApplyToElements<T>(Silu<T>(), out, input, begin, end);
    case Activation::kGelu:
      return ApplyToElements<T>(Gelu<T>(), out, input, begin, end);
    case Activation::kGeluTanh:
      return ApplyToElements<T>(GeluTanh<T>(), out, input, begin, end);
    case Activation::kGeluQuick:
      return ApplyToElements<T>(GeluQuick<T>(), out, input, begin, end);
    case Activation::kReluSquared:
      return ApplyToElements<T>(ReluSquared<T>(), out, input, begin, end);
  }
}

template <typename T>
void ActivateGates(const Gate& gate, const Rows& out, const Rows& input, int64_t begin,
                   int64_t end) {
  switch (gate.kind) {
    case Gate::kSilu:
      return ApplyToGates<T>(TimesFactor<Silu<T>>(), gate.layout, out, input, begin, end);
    case Gate::kGelu:
      return ApplyToGates<T>(TimesFactor<Gelu<T>>(), gate.layout, out, input, begin, end);
    case Gate::kGeluTanh:
      return ApplyToGates<T>(TimesFactor<GeluTanh<T>>(), gate.layout, out, input, begin, end);
    case Gate::kFatRelu:
      return ApplyToGates<T>(FatRelu{gate.limit}, gate.layout, out, input, begin, end);
    case Gate::kClampedSilu:
      return ApplyToGates<T>(ClampedSilu<T>{gate.limit, gate.alpha, gate.beta}, gate.layout, out,
                             input, begin, end);
  }
}

void ActivateRange(Activation activation, const Rows& out, const Rows& input, int64_t begin,
                   int64_t end) {
  WithType(out.dtype, [&](auto element) HWY_ATTR {
    ActivateElements<decltype(element)>(activation, out, input, begin, end);
  });
}

void ActivateAndMulRange(const Gate& gate, const Rows& out, const Rows& input, int64_t begin,
                         int64_t end) {
  WithType(out.dtype, [&](auto element) HWY_ATTR {
    ActivateGates<decltype(element)>(gate, out, input, begin, end);
  });
}

// Computes elements [begin, end) of silu(gate) * factor / scale as codes.
template <typename T, typename Q>
HWY_NOINLINE void ApplySiluAndQuantize(const Rows& out, const Rows& input, float factor,
                                       int64_t begin, int64_t end) {
  const auto scaled = [factor](VF32 gate, VF32 other) HWY_ATTR {
    return hn::Mul(hn::Mul(Silu<Q>()(gate), other), hn::Set(F32(), factor));
  };
  ForParts(out, begin, end, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
    const T* x = input.Row<T>(row) + column;
    QuantizeSpan(GatedHalves<T, decltype(scaled)>{x, x + out.width, scaled},
                 out.Row<Q>(row) + column, n);
  });
}

void SiluQuantRange(QType type, const Rows& out, const Rows& input, float factor, int64_t begin,
                    int64_t end) {
  WithType(input.dtype, [&](auto element) HWY_ATTR {
    WithFp8Code(type, [&](auto code) HWY_ATTR {
      ApplySiluAndQuantize<decltype(element), decltype(code)>(out, input, factor, begin, end);
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

HWY_EXPORT(ActivateRange);
HWY_EXPORT(ActivateAndMulRange);
HWY_EXPORT(SiluQuantRange);

void Activate(Activation activation, const Rows& out, const Rows& input) {
  auto& function = VLLM_CPU_DISPATCH(ActivateRange);
  ParallelFor(out.count * out.width, 1,
              [&](int64_t begin, int64_t end) { function(activation, out, input, begin, end); });
}

void ActivateAndMul(const Gate& gate, const Rows& out, const Rows& input) {
  auto& function = VLLM_CPU_DISPATCH(ActivateAndMulRange);
  ParallelFor(out.count * out.width, 1,
              [&](int64_t begin, int64_t end) { function(gate, out, input, begin, end); });
}

void ActivateAndQuantize(const Rows& out, QType type, const Rows& input, const float* scale) {
  auto& function = VLLM_CPU_DISPATCH(SiluQuantRange);
  const float factor = 1.0f / *scale;
  ParallelFor(out.count * out.width, 1,
              [&](int64_t begin, int64_t end) { function(type, out, input, factor, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
