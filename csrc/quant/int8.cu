// SPDX-License-Identifier: Apache-2.0
#include "quant/int8.h"

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "core/gpu/row_teams.h"
#include "quant/map_gpu.h"
#include "quant/quantize_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

struct Symmetric {
  const float* scale;

  template <typename T, int kCount>
  __device__ __forceinline__ Pack<int8_t, kCount> operator()(int64_t /*row*/, int64_t /*column*/,
                                                             const Pack<T, kCount>& items) const {
    return EncodeTransformed<int8_t>(items, Divide(*scale));
  }
};

// Returns round(x * factor) + azp as int8. The rounded product and azp may be any int32.
template <typename T, int kCount>
__device__ __forceinline__ Pack<int8_t, kCount> EncodeShifted(const Pack<T, kCount>& items,
                                                              float factor, int32_t azp) {
  Pack<int8_t, kCount> codes;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const int64_t sum = int64_t{ToInt32(ToFloat(items.items[j]) * factor)} + azp;
    codes.items[j] = static_cast<int8_t>(sum < -128 ? -128 : sum > 127 ? 127 : sum);
  }
  return codes;
}

struct Asymmetric {
  const float* scale;
  const int32_t* azp;

  template <typename T, int kCount>
  __device__ __forceinline__ Pack<int8_t, kCount> operator()(int64_t /*row*/, int64_t /*column*/,
                                                             const Pack<T, kCount>& items) const {
    return EncodeShifted(items, 1.0f / *scale, *azp);
  }
};

template <typename T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    QuantizeSymmetricRows(Rows out, Rows input, float* scales) {
  ForRows<Team>(input.count, [&](int64_t row, bool has_row) {
    const int64_t packs = has_row ? CountPacks<T>(input.width) : 0;
    TeamRow<Team, T> x(GetRow<const T>(input, row), input.width);
    x.Load();
    float largest = 0.0f;
    ForPacks<Team>(
        packs, [&](int k, auto pack) { largest = FindLargestMagnitude(x.Get(k, pack), largest); });
    x.KeepPacked();
    largest = Team::Reduce(largest, 0.0f, Max());
    if (has_row && Team::Thread() == 0) scales[row] = largest / 127.0f;
    // Finite, so that zeros next to subnormal numbers stay zeros.
    const Times times(largest == 0.0f ? 0.0f : SmallerNumber(127.0f / largest, FLT_MAX));
    int8_t* to = GetRow<int8_t>(out, row);
    ForPacks<Team>(packs, [&](int k, auto pack) {
      StorePart<Team::kAligned>(to, input.width, pack * kPerLoad<T>,
                                EncodeTransformed<int8_t>(x.Get(k, pack), times));
    });
  });
}

template <typename T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    QuantizeAsymmetricRows(Rows out, Rows input, float* scales, int32_t* azps) {
  constexpr int kCount = kPerLoad<T>;
  ForRows<Team>(input.count, [&](int64_t row, bool has_row) {
    const int64_t packs = has_row ? CountPacks<T>(input.width) : 0;
    TeamRow<Team, T> x(GetRow<const T>(input, row), input.width);
    x.Load();
    // The smallest number is negated, so that both are maxima.
    float negated = -INFINITY, largest = -INFINITY;
    ForPacks<Team>(packs, [&](int k, auto pack) {
      const Pack<T, kCount> items = x.Get(k, pack);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        if (!Team::kAligned && pack * kCount + j >= input.width)
          continue;  // skip the padding zeros, which are not elements of the row
        negated = LargerNumber(-ToFloat(items.items[j]), negated);
        largest = LargerNumber(ToFloat(items.items[j]), largest);
      }
    });
    x.KeepPacked();
    Team::ReduceTwo(negated, largest, -INFINITY, Max());
    float least = -negated;
    if (least > largest) least = largest = 0.0f;
    if (least == largest) {
      least = SmallerNumber(least, 0.0f);
      largest = LargerNumber(largest, 0.0f);
    }
    const float scale = (largest - least) / 255.0f;
    const int32_t azp = scale == 0.0f ? 0 : ToInt32(-128.0f - least / scale);
    if (has_row && Team::Thread() == 0) {
      scales[row] = scale;
      azps[row] = azp;
    }
    const float factor = scale == 0.0f ? 0.0f : 1.0f / scale;
    int8_t* to = GetRow<int8_t>(out, row);
    ForPacks<Team>(packs, [&](int k, auto pack) {
      StorePart<Team::kAligned>(to, input.width, pack * kCount,
                                EncodeShifted(x.Get(k, pack), factor, azp));
    });
  });
}

}  // namespace

void QuantizeInt8Static(const Rows& out, const Rows& input, const float* scale,
                        const int32_t* azp) {
  const char* name = "static_scaled_int8_quant";
  WithType(input.dtype, [&](auto element) {
    using T = decltype(element);
    if (azp == nullptr) {
      LaunchQuantizeAlike<T, int8_t>(name, out, input, Symmetric{scale});
    } else {
      LaunchQuantizeAlike<T, int8_t>(name, out, input, Asymmetric{scale, azp});
    }
  });
}

void QuantizeInt8Dynamic(const Rows& out, const Rows& input, float* scales, int32_t* azps) {
  const char* name = "dynamic_scaled_int8_quant";
  WithType(input.dtype, [&](auto element) {
    using T = decltype(element);
    WithRowTeam<T>(
        input.count, input.width, HasWholePacks<T>(input) && HasWholePacks<T, int8_t>(out),
        [&](auto team, unsigned blocks, int threads) {
          using Team = decltype(team);
          if (azps == nullptr) {
            Launch(name, &QuantizeSymmetricRows<T, Team>, blocks, threads, 0, out, input, scales);
          } else {
            Launch(name, &QuantizeAsymmetricRows<T, Team>, blocks, threads, 0, out, input, scales,
                   azps);
          }
        });
  });
}

}  // namespace vllm
