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
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Calls f(row, column, n) for the parts of rows that hold elements [begin, end) of the output, counted through all rows.
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
HWY_NOINLINE void Plain(const F& f, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  const bool stream = WorthStreaming<T>(out) && out.data != input.data;
  ForParts(out, begin, end, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
    WriteSpan(Elements<T, F>{input.Row<T>(row) + column, f}, out.Row<T>(row) + column, n, stream);
  });
  if (stream) hwy::FlushStream();
}

template <typename T, class F>
HWY_NOINLINE void Gated(const F& f, Layout layout, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  const bool stream = WorthStreaming<T>(out);
  ForParts(out, begin, end, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
    const T* x = input.Row<T>(row);
    T* HWY_RESTRICT to = out.Row<T>(row) + column;
    const T* first = x + column;
    const T* second = first + out.width;
    switch (layout) {
      case Layout::kGateFirst:
        return WriteSpan(Halves<T, F>{first, second, f}, to, n, stream);
      case Layout::kGateLast:
        return WriteSpan(Halves<T, F>{second, first, f}, to, n, stream);
      case Layout::kInterleaved:
        return WriteSpan(Pairs<T, F>{x + 2 * column, f}, to, n, stream);
    }
  });
  if (stream) hwy::FlushStream();
}

template <typename T>
void PlainOf(Activation activation, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (activation) {
    case Activation::kSilu:
      return Plain<T>(Silu<T>(), out, input, begin, end);
    case Activation::kGelu:
      return Plain<T>(Gelu<T>(), out, input, begin, end);
    case Activation::kGeluTanh:
      return Plain<T>(GeluTanh<T>(), out, input, begin, end);
    case Activation::kGeluQuick:
      return Plain<T>(GeluQuick<T>(), out, input, begin, end);
    case Activation::kReluSquared:
      return Plain<T>(ReluSquared<T>(), out, input, begin, end);
  }
}

template <typename T>
void GatedOf(const Gate& gate, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (gate.kind) {
    case Gate::kSilu:
      return Gated<T>(TimesFactor<Silu<T>>(), gate.layout, out, input, begin, end);
    case Gate::kGelu:
      return Gated<T>(TimesFactor<Gelu<T>>(), gate.layout, out, input, begin, end);
    case Gate::kGeluTanh:
      return Gated<T>(TimesFactor<GeluTanh<T>>(), gate.layout, out, input, begin, end);
    case Gate::kFatRelu:
      return Gated<T>(FatRelu{gate.limit}, gate.layout, out, input, begin, end);
    case Gate::kClampedSilu:
      return Gated<T>(ClampedSilu<T>{gate.limit, gate.alpha, gate.beta}, gate.layout, out, input, begin, end);
  }
}

void ActivateRange(Activation activation, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (out.dtype) {
    case DType::kFloat32:
      return PlainOf<float>(activation, out, input, begin, end);
    case DType::kBFloat16:
      return PlainOf<hwy::bfloat16_t>(activation, out, input, begin, end);
    case DType::kFloat16:
      return PlainOf<hwy::float16_t>(activation, out, input, begin, end);
  }
}

void ActivateAndMulRange(const Gate& gate, const Rows& out, const Rows& input, int64_t begin, int64_t end) {
  switch (out.dtype) {
    case DType::kFloat32:
      return GatedOf<float>(gate, out, input, begin, end);
    case DType::kBFloat16:
      return GatedOf<hwy::bfloat16_t>(gate, out, input, begin, end);
    case DType::kFloat16:
      return GatedOf<hwy::float16_t>(gate, out, input, begin, end);
  }
}

// Elements [begin, end) of silu(gate) * factor / scale as codes.
template <typename T, typename Q>
HWY_NOINLINE void SiluQuant(const Rows& out, const Rows& input, float factor, int64_t begin, int64_t end) {
  const auto scaled = [factor](VF32 gate, VF32 other) HWY_ATTR { return hn::Mul(hn::Mul(Silu<Q>()(gate), other), hn::Set(F32(), factor)); };
  ForParts(out, begin, end, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
    const T* x = input.Row<T>(row) + column;
    QuantizeSpan(Halves<T, decltype(scaled)>{x, x + out.width, scaled}, out.Row<Q>(row) + column, n);
  });
}

template <typename T>
void SiluQuantOf(QType type, const Rows& out, const Rows& input, float factor, int64_t begin, int64_t end) {
  if (type == QType::kE4M3) {
    SiluQuant<T, E4M3>(out, input, factor, begin, end);
  } else {
    SiluQuant<T, E5M2>(out, input, factor, begin, end);
  }
}

void SiluQuantRange(QType type, const Rows& out, const Rows& input, float factor, int64_t begin, int64_t end) {
  switch (input.dtype) {
    case DType::kFloat32:
      return SiluQuantOf<float>(type, out, input, factor, begin, end);
    case DType::kBFloat16:
      return SiluQuantOf<hwy::bfloat16_t>(type, out, input, factor, begin, end);
    case DType::kFloat16:
      return SiluQuantOf<hwy::float16_t>(type, out, input, factor, begin, end);
  }
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
  ParallelFor(out.count * out.width, 1, [&](int64_t begin, int64_t end) { function(activation, out, input, begin, end); });
}

void ActivateAndMul(const Gate& gate, const Rows& out, const Rows& input) {
  auto& function = VLLM_CPU_DISPATCH(ActivateAndMulRange);
  ParallelFor(out.count * out.width, 1, [&](int64_t begin, int64_t end) { function(gate, out, input, begin, end); });
}

void SiluAndMulQuant(const Rows& out, QType type, const Rows& input, const float* scale) {
  auto& function = VLLM_CPU_DISPATCH(SiluQuantRange);
  const float factor = 1.0f / *scale;
  ParallelFor(out.count * out.width, 1, [&](int64_t begin, int64_t end) { function(type, out, input, factor, begin, end); });
}

}  // namespace vllm
#endif  // HWY_ONCE
