// SPDX-License-Identifier: Apache-2.0
#include "quant/fp8.h"

#include <algorithm>
#include <cfloat>

#include "core/gpu/divide.h"
#include "core/gpu/row_teams.h"
#include "quant/map_gpu.h"
#include "quant/quantize_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

// Multiplies by the reciprocal of one scale. With kFinite the reciprocal is finite, so that zeros
// stay zeros if the scale is zero.
template <class Q, bool kFinite>
struct OneScale {
  const float* scale;

  template <typename T, int kCount>
  __device__ __forceinline__ Pack<Q, kCount> operator()(int64_t /*row*/, int64_t /*column*/,
                                                        const Pack<T, kCount>& items) const {
    const float reciprocal = 1.0f / *scale;
    return EncodeTransformed<Q>(items,
                                Times(kFinite ? SmallerNumber(reciprocal, FLT_MAX) : reciprocal));
  }
};

// Multiplies by the reciprocals of the scales of a grid.
template <class Q>
struct GridScales {
  ScaleGrid grid;
  DivideBy group_rows, group_columns;

  template <typename T, int kCount>
  __device__ __forceinline__ Pack<Q, kCount> operator()(int64_t row, int64_t column,
                                                        const Pack<T, kCount>& items) const {
    const float* scale = grid.data + group_rows(row) * grid.row_stride;
    const int64_t group = group_columns(column);
    scale += group * grid.column_stride;
    float reciprocal = 1.0f / *scale;
    int64_t left = (group + 1) * grid.group_columns - column;
    if (left >= kCount) return EncodeTransformed<Q>(items, Times(reciprocal));
    float values[kCount];
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (left == 0) {
        scale += grid.column_stride;
        reciprocal = 1.0f / *scale;
        left = grid.group_columns;
      }
      --left;
      values[j] = ToFloat(items.items[j]) * reciprocal;
    }
    return ToCodes<Q>(values);
  }
};

__global__ void SetZero(float* scale) { *scale = 0.0f; }

// *scale becomes the maximum of itself and the quotients of all blocks. Dividing by the same number
// keeps the order of the dividends, and the bits of non-negative numbers are ordered as the numbers
// are.
template <int kCount, typename T>
__global__ void __launch_bounds__(kMapThreads)
    LargestOverBlocks(Rows input, QType type, float* scale) {
  float largest = 0.0f;
  const int64_t steps = input.width / kCount;
  for (int64_t row = blockIdx.y; row < input.count; row += gridDim.y) {
    const T* from = GetRow<const T>(input, row);
#pragma unroll 4
    for (int64_t step = int64_t{blockIdx.x} * kMapThreads + threadIdx.x; step < steps;
         step += int64_t{gridDim.x} * kMapThreads) {
      largest = FindLargestMagnitude(LoadPack<kCount>(from + step * kCount), largest);
    }
  }
  largest = BlockReduce(largest, 0.0f, Max());
  const float divisor = type == QType::kE4M3 ? GetScaledMax<E4M3>() : GetScaledMax<E5M2>();
  if (threadIdx.x == 0)
    atomicMax(reinterpret_cast<unsigned*>(scale),
              static_cast<unsigned>(FloatToBits(largest / divisor)));
}

template <typename T>
void FindScale(const char* name, const Rows& input, QType type, float* scale) {
  constexpr int kBlocksEach = 8;  // as many as a multiprocessor runs at once
  Launch(name, &SetZero, dim3(1), 1, 0, scale);
  const bool packed = HasWholePacks<T>(input);
  dim3 blocks =
      ChooseRowGrid(packed ? input.width / kPerLoad<T> : input.width, input.count, kMapThreads);
  if (blocks.x == 0) return;
  const unsigned most = static_cast<unsigned>(kBlocksEach * GetMultiprocessorCount());
  blocks.x = std::min(blocks.x, most);
  blocks.y = std::min(blocks.y, std::max(1u, most / blocks.x));
  Launch(name, packed ? &LargestOverBlocks<kPerLoad<T>, T> : &LargestOverBlocks<1, T>, blocks,
         kMapThreads, 0, input, type, scale);
}

template <typename T, class Q, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    QuantizeRows(Rows out, Rows input, float* scales, const float* bound) {
  ForRows<Team>(input.count, [&](int64_t row, bool has_row) {
    const int64_t packs = has_row ? CountPacks<T>(input.width) : 0;
    TeamRow<Team, T> x(GetRow<const T>(input, row), input.width);
    x.Load();
    float largest = 0.0f;
    ForPacks<Team>(
        packs, [&](int k, auto pack) { largest = FindLargestMagnitude(x.Get(k, pack), largest); });
    x.KeepPacked();
    const RowScale<Q> scale(Team::Reduce(largest, 0.0f, Max()), bound);
    if (has_row && Team::Thread() == 0) scales[row] = scale.scale;
    Q* to = GetRow<Q>(out, row);
    ForPacks<Team>(packs, [&](int k, auto pack) {
      StorePart<Team::kAligned>(to, input.width, pack * kPerLoad<T>,
                                EncodeTransformed<Q>(x.Get(k, pack), scale.divide));
    });
  });
}

// Calls f with values of the element types of input and output.
template <class F>
void WithTypes(DType input, QType output, F&& f) {
  WithType(input, [&](auto element) { WithFp8(output, [&](auto code) { f(element, code); }); });
}

}  // namespace

void QuantizeFp8Static(const Rows& out, QType type, const Rows& input, const ScaleGrid& scales) {
  const char* name = "static_scaled_fp8_quant";
  WithTypes(input.dtype, type, [&](auto element, auto code) {
    using T = decltype(element);
    using Q = decltype(code);
    if (scales.group_rows >= input.count && scales.group_columns >= input.width) {
      LaunchQuantizeAlike<T, Q>(name, out, input, OneScale<Q, false>{scales.data});
    } else {
      LaunchQuantize<T, Q>(
          name, out, input,
          GridScales<Q>{scales, DivideBy(scales.group_rows), DivideBy(scales.group_columns)});
    }
  });
}

void QuantizeFp8Dynamic(const Rows& out, QType type, const Rows& input, float* scale) {
  const char* name = "dynamic_scaled_fp8_quant";
  WithTypes(input.dtype, type, [&](auto element, auto code) {
    using T = decltype(element);
    using Q = decltype(code);
    FindScale<T>(name, IsOnePiece(input) ? JoinRows(input) : input, type, scale);
    LaunchQuantizeAlike<T, Q>(name, out, input, OneScale<Q, true>{scale});
  });
}

void QuantizeFp8PerToken(const Rows& out, QType type, const Rows& input, float* scales,
                         const float* bound) {
  WithTypes(input.dtype, type, [&](auto element, auto code) {
    using T = decltype(element);
    using Q = decltype(code);
    WithRowTeam<T>(input.count, input.width, HasWholePacks<T>(input) && HasWholePacks<T, Q>(out),
                   [&](auto team, unsigned blocks, int threads) {
                     Launch("dynamic_per_token_scaled_fp8_quant",
                            &QuantizeRows<T, Q, decltype(team)>, blocks, threads, 0, out, input,
                            scales, bound);
                   });
  });
}

}  // namespace vllm
