// SPDX-License-Identifier: Apache-2.0
#include "norm/norm_quant.h"

#include "norm/norm_gpu.h"
#include "quant/quantize_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

// Writes the normalised numbers of a team, divided, as codes.
template <class Q, class Team, typename T, class F>
__device__ __forceinline__ void WriteCodes(const NormedRow<Team, T>& normed, Q* to, int64_t width,
                                           const F& divide) {
  normed.ForNormed([&](auto pack, auto& values) {
#pragma unroll
    for (float& value : values) value = divide(value);
    StorePart<Team::kAligned>(to, width, pack * kPerLoad<T>, ToCodes<Q>(values));
  });
}

template <typename T, class Q, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    NormStaticRows(NormOperands operands, const float* scale) {
  ForRows<Team>(operands.input.count, [&](int64_t row, bool has_row) {
    const auto normed = operands.Row<T, Team>(row, has_row);
    WriteCodes(normed, GetRow<Q>(operands.out, row), operands.out.width, Times(1.0f / *scale));
  });
}

template <typename T, class Q, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    NormDynamicRows(NormOperands operands, float* scales, const float* bound) {
  ForRows<Team>(operands.input.count, [&](int64_t row, bool has_row) {
    auto normed = operands.Row<T, Team>(row, has_row);
    float largest = 0.0f;
    normed.ForNormed([&](auto, const auto& values) {
#pragma unroll
      for (const float value : values) largest = LargerNumber(fabsf(value), largest);
    });
    normed.KeepPacked();
    const RowScale<Q> scale(Team::Reduce(largest, 0.0f, Max()), bound);
    if (has_row && Team::Thread() == 0) scales[row] = scale.scale;
    WriteCodes(normed, GetRow<Q>(operands.out, row), operands.out.width, scale.divide);
  });
}

}  // namespace

void NormalizeAndQuantizeStatic(const Rows& out, QType type, const Rows& input,
                                const Rows* residual, const void* weight, const float* scale,
                                float epsilon) {
  const NormOperands operands = MakeNormOperands(out, input, residual, weight, epsilon);
  WithType(input.dtype, [&](auto element) {
    WithFp8(type, [&](auto code) {
      using T = decltype(element);
      using Q = decltype(code);
      WithRowTeam<T>(input.count, input.width, operands.AreWholePacks<T, Q>(),
                     [&](auto team, unsigned blocks, int threads) {
                       Launch("rms_norm_static_fp8_quant", &NormStaticRows<T, Q, decltype(team)>,
                              blocks, threads, 0, operands, scale);
                     });
    });
  });
}

void NormalizeAndQuantizeDynamic(const Rows& out, QType type, const Rows& input,
                                 const Rows* residual, const void* weight, float* scales,
                                 const float* bound, float epsilon) {
  const NormOperands operands = MakeNormOperands(out, input, residual, weight, epsilon);
  WithType(input.dtype, [&](auto element) {
    WithCode(type, [&](auto code) {
      using T = decltype(element);
      using Q = decltype(code);
      WithRowTeam<T>(input.count, input.width, operands.AreWholePacks<T, Q>(),
                     [&](auto team, unsigned blocks, int threads) {
                       Launch("rms_norm_dynamic_per_token_quant",
                              &NormDynamicRows<T, Q, decltype(team)>, blocks, threads, 0, operands,
                              scales, bound);
                     });
    });
  });
}

}  // namespace vllm
