// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "quant/fp8.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/fp8_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/with_type-inl.h"
#include "quant/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Computes the reciprocals of the scales of columns [begin, end), one for each column.
void SpreadReciprocals(const ScaleGrid& scales, int64_t row, int64_t begin, int64_t end,
                       float* HWY_RESTRICT to) {
  const float* from = scales.data + row / scales.group_rows * scales.row_stride;
  int64_t group = begin / scales.group_columns;
  int64_t left = (group + 1) * scales.group_columns - begin;
  float reciprocal = 1.0f / from[group * scales.column_stride];
  for (int64_t column = begin; column < end; ++column) {
    if (left == 0) {
      ++group;
      left = scales.group_columns;
      reciprocal = 1.0f / from[group * scales.column_stride];
    }
    --left;
    to[column - begin] = reciprocal;
  }
}

template <typename T>
struct ScaledColumns {
  static constexpr bool kSplit = kSplits<T>;
  const T* HWY_RESTRICT x;
  const float* HWY_RESTRICT factors;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    VF32 factor0, factor1;
    LoadSplit(x + i, v0, v1);
    LoadSplitAs<T>(factors + i, factor0, factor1);
    v0 = hn::Mul(v0, factor0);
    v1 = hn::Mul(v1, factor1);
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const {
    return hn::Mul(LoadTail(x + i, n), LoadTail(factors + i, n));
  }
};

// Quantises elements [begin, end), numbered across rows. `spread` is scratch memory for a row of
// floats if reciprocals are spread.
template <typename T, typename Q>
HWY_NOINLINE void QuantizeSpanStatic(const Rows& out, const Rows& input, const ScaleGrid& scales,
                                     int64_t begin, int64_t end, float* spread) {
  const bool spreads = spread != nullptr;
  int64_t spread_group = -1, spread_column = 0, spread_count = 0;
  while (begin < end) {
    const int64_t row = begin / input.width;
    const int64_t column = begin % input.width;
    const int64_t in_group = scales.group_columns - column % scales.group_columns;
    const int64_t n =
        std::min(end - begin, std::min(input.width - column, spreads ? input.width : in_group));
    const T* x = input.Row<T>(row) + column;
    Q* to = out.Row<Q>(row) + column;
    if (spreads) {
      const int64_t group = row / scales.group_rows;
      if (group != spread_group || column != spread_column || n > spread_count) {
        SpreadReciprocals(scales, row, column, column + n, spread);
        spread_group = group;
        spread_column = column;
        spread_count = n;
      }
      QuantizeSpan(ScaledColumns<T>{x, spread}, to, static_cast<size_t>(n));
    } else {
      const float scale = scales.data[row / scales.group_rows * scales.row_stride +
                                      column / scales.group_columns * scales.column_stride];
      QuantizeSpan(Mapped(x, Times{1.0f / scale}), to, static_cast<size_t>(n));
    }
    begin += n;
  }
}

template <typename T, typename Q>
HWY_NOINLINE void QuantizeSpanScaled(const Rows& out, const Rows& input, float factor,
                                     int64_t begin, int64_t end) {
  while (begin < end) {
    const int64_t row = begin / input.width;
    const int64_t column = begin % input.width;
    const int64_t n = std::min(end - begin, input.width - column);
    QuantizeSpan(Mapped(input.Row<T>(row) + column, Times{factor}), out.Row<Q>(row) + column,
                 static_cast<size_t>(n));
    begin += n;
  }
}

template <typename T, typename Q>
HWY_NOINLINE void QuantizeRowsPerToken(const Rows& out, const Rows& input, float* scales,
                                       const float* bound, int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(input.width);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = input.Row<T>(row);
    const float largest = FindRowAbsMax(x, width);
    const float bounded = bound == nullptr ? largest : SmallerNumber(*bound, largest);
    const float scale = LargerNumber(bounded / Q::kMax, 1.0f / (Q::kMax * 512.0f));
    scales[row] = scale;
    WithDivision(scale, largest, [&](auto divide) HWY_ATTR {
      QuantizeSpan(Mapped(x, divide), out.Row<Q>(row), width);
    });
  }
}

template <typename T>
float FindAbsMax(const Rows& input, int64_t begin, int64_t end) {
  float largest = 0.0f;
  while (begin < end) {
    const int64_t column = begin % input.width;
    const int64_t n = std::min(end - begin, input.width - column);
    largest = LargerNumber(
        FindRowAbsMax(input.Row<T>(begin / input.width) + column, static_cast<size_t>(n)), largest);
    begin += n;
  }
  return largest;
}

// Calls function(T(), Q()) for the element types of input and output.
template <class F>
HWY_INLINE void WithTypes(DType input, QType output, const F& function) {
  WithType(input, [&](auto element) HWY_ATTR {
    WithFp8Code(output, [&](auto code) HWY_ATTR { function(element, code); });
  });
}

void QuantizeStaticRange(const Rows& out, QType type, const Rows& input, const ScaleGrid& scales,
                         int64_t begin, int64_t end, float* spread) {
  WithTypes(input.dtype, type, [&](auto element, auto code) HWY_ATTR {
    QuantizeSpanStatic<decltype(element), decltype(code)>(out, input, scales, begin, end, spread);
  });
}

void QuantizeScaledRange(const Rows& out, QType type, const Rows& input, float factor,
                         int64_t begin, int64_t end) {
  WithTypes(input.dtype, type, [&](auto element, auto code) HWY_ATTR {
    QuantizeSpanScaled<decltype(element), decltype(code)>(out, input, factor, begin, end);
  });
}

void QuantizePerTokenRange(const Rows& out, QType type, const Rows& input, float* scales,
                           const float* bound, int64_t begin, int64_t end) {
  WithTypes(input.dtype, type, [&](auto element, auto code) HWY_ATTR {
    QuantizeRowsPerToken<decltype(element), decltype(code)>(out, input, scales, bound, begin, end);
  });
}

float FindAbsMaxRange(const Rows& input, int64_t begin, int64_t end) {
  return WithType(input.dtype, [&](auto element) HWY_ATTR {
    return FindAbsMax<decltype(element)>(input, begin, end);
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <atomic>
#include <vector>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {

HWY_EXPORT(QuantizeStaticRange);
HWY_EXPORT(QuantizeScaledRange);
HWY_EXPORT(QuantizePerTokenRange);
HWY_EXPORT(FindAbsMaxRange);

namespace {

// If column groups are smaller than this, their reciprocals are first spread to one for each
// column, so that vectors do not end inside a group.
constexpr int64_t kSpreadBelow = 32;

}  // namespace

void QuantizeFp8Static(const Rows& out, QType type, const Rows& input, const ScaleGrid& scales) {
  auto& function = VLLM_CPU_DISPATCH(QuantizeStaticRange);
  const bool spreads = scales.group_columns < std::min(kSpreadBelow, input.width);
  ParallelFor(input.count * input.width, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> spread(spreads ? static_cast<size_t>(std::min(input.width, end - begin))
                                      : 0);
    function(out, type, input, scales, begin, end, spreads ? spread.data() : nullptr);
  });
}

void QuantizeFp8Dynamic(const Rows& out, QType type, const Rows& input, float* scale) {
  auto& abs_max = VLLM_CPU_DISPATCH(FindAbsMaxRange);
  auto& quantize = VLLM_CPU_DISPATCH(QuantizeScaledRange);
  const int64_t elements = input.count * input.width;
  std::atomic<float> largest(0.0f);
  ParallelFor(elements, 1, [&](int64_t begin, int64_t end) {
    const float mine = abs_max(input, begin, end);
    float others = largest.load();
    while (mine > others && !largest.compare_exchange_weak(others, mine)) {
    }
  });
  *scale = largest.load() / (type == QType::kE4M3 ? E4M3::kMax : E5M2::kMax);
  // Finite, so that zeros stay zeros if the scale is zero.
  const float factor = SmallerNumber(1.0f / *scale, std::numeric_limits<float>::max());
  ParallelFor(elements, 1,
              [&](int64_t begin, int64_t end) { quantize(out, type, input, factor, begin, end); });
}

void QuantizeFp8PerToken(const Rows& out, QType type, const Rows& input, float* scales,
                         const float* bound) {
  auto& function = VLLM_CPU_DISPATCH(QuantizePerTokenRange);
  ParallelFor(input.count, input.width, [&](int64_t begin, int64_t end) {
    function(out, type, input, scales, bound, begin, end);
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
