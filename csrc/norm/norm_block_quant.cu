// SPDX-License-Identifier: Apache-2.0
#include "norm/norm_block_quant.h"

#include <cstdint>

#include "norm/norm_gpu.h"
#include "quant/quantize_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

// For teams that keep their rows in registers: a group consists of the packs of `lanes` adjacent
// threads, a power of two within one warp.
template <class Q, class Team, typename T>
__device__ __forceinline__ void QuantizeHeldGroups(const NormedRow<Team, T>& normed, Q* to,
                                                   int64_t width, float* scales,
                                                   int64_t scale_stride, int lanes,
                                                   const float* bound) {
  constexpr int kCount = kPerLoad<T>;
  const int64_t lanes_bits = lanes - 1;
#pragma unroll
  for (int k = 0; k < Team::kHeld; ++k) {
    const int pack = Team::Thread() + k * Team::Threads();
    const bool has_pack = pack < static_cast<int>(normed.packs);
    float values[kCount];
    normed.Get(k, pack, values);
    float largest = 0.0f;
#pragma unroll
    for (const float value : values) largest = LargerNumber(fabsf(value), largest);
    for (int mask = lanes / 2; mask > 0; mask /= 2)
      largest = LargerNumber(ShuffleXor(largest, mask), largest);
    if (!has_pack) continue;
    const RowScale<Q> scale(largest, bound);
    if ((pack & lanes_bits) == 0) scales[pack / lanes * scale_stride] = scale.scale;
#pragma unroll
    for (float& value : values) value = scale.divide(value);
    StorePart<Team::kAligned>(to, width, int64_t{pack} * kCount, ToCodes<Q>(values));
  }
}

// For any groups: warps take one group after the other and read its elements again.
template <class Q, typename T>
__device__ __forceinline__ void QuantizeGroups(const T* x, const T* weight, float factor, Q* to,
                                               int64_t width, float* scales, int64_t scale_stride,
                                               int64_t size, const float* bound) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int64_t begin = Warp() * size, group = Warp(); begin < width;
       begin += warps * size, group += warps) {
    float largest = 0.0f;
    for (int64_t i = begin + Lane(); i < begin + size; i += kWarp) {
      largest = LargerNumber(fabsf(ToFloat(x[i]) * factor * ToFloat(weight[i])), largest);
    }
    const RowScale<Q> scale(WarpReduce(largest, Max()), bound);
    if (Lane() == 0) scales[group * scale_stride] = scale.scale;
    for (int64_t i = begin + Lane(); i < begin + size; i += kWarp) {
      const float value[1] = {scale.divide(ToFloat(x[i]) * factor * ToFloat(weight[i]))};
      StorePack(to + i, ToCodes<Q>(value));
    }
  }
}

template <typename T, class Q, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    NormBlockRows(NormOperands operands, GroupScales scales, int64_t size, const float* bound) {
  const int64_t width = operands.input.width;
  ForRows<Team>(operands.input.count, [&](int64_t row, bool has_row) {
    auto normed = operands.Row<T, Team>(row, has_row);
    normed.KeepPacked();
    Q* to = GetRow<Q>(operands.out, row);
    float* row_scales = GetRow<float>(scales.rows, row);
    if constexpr (Team::kHeld > 0) {
      QuantizeHeldGroups(normed, to, width, row_scales, scales.column_stride,
                         static_cast<int>(size / kPerLoad<T>), bound);
    } else {
      // Additions of other threads to the residual are visible, because the reduction since then
      // has synchronised the threads.
      const T* x = operands.residual.data == nullptr ? GetRow<const T>(operands.input, row)
                                                     : GetRow<const T>(operands.residual, row);
      QuantizeGroups(x, static_cast<const T*>(operands.weight), normed.factor, to, width,
                     row_scales, scales.column_stride, size, bound);
    }
  });
}

}  // namespace

void NormalizeAndQuantizeGroups(const Rows& out, QType type, const Rows& input,
                                const Rows* residual, const void* weight, const GroupScales& scales,
                                int64_t size, const float* bound, float epsilon) {
  const NormOperands operands = MakeNormOperands(out, input, residual, weight, epsilon);
  WithType(input.dtype, [&](auto element) {
    WithCode(type, [&](auto code) {
      using T = decltype(element);
      using Q = decltype(code);
      const int64_t lanes = size / kPerLoad<T>;
      const bool whole = size % kPerLoad<T> == 0 && lanes <= kWarp && (lanes & (lanes - 1)) == 0;
      WithRowTeam<T>(input.count, input.width, whole && operands.AreWholePacks<T, Q>(),
                     [&](auto team, unsigned blocks, int threads) {
                       Launch("rms_norm_per_block_quant", &NormBlockRows<T, Q, decltype(team)>,
                              blocks, threads, 0, operands, scales, size, bound);
                     });
    });
  });
}

}  // namespace vllm
