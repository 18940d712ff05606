// SPDX-License-Identifier: Apache-2.0
#include "quant/group.h"

#include <cstdint>

#include "core/gpu/divide.h"
#include "core/gpu/row_teams.h"
#include "quant/quantize_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

// Returns the smallest power of two that is at least x. x is normal and not negative.
__device__ __forceinline__ float RoundUpToPowerOfTwo(float x) {
  return BitsToFloat((FloatToBits(x) + 0x7fffffu) & 0x7f800000u);
}

__device__ __forceinline__ float ComputeGroupScale(float largest, const GroupQuantization& how) {
  const float scale = LargerNumber(how.epsilon, largest) / how.high;
  return how.power_of_two ? RoundUpToPowerOfTwo(LargerNumber(fabsf(scale), 1e-10f)) : scale;
}

// Converts the quotient to its stored form: within limits; for int8 truncated towards zero, as in
// C. NaN stays NaN.
template <class Q>
struct Quotient {
  Divide divide;
  float low, high;

  __device__ __forceinline__ float operator()(float x) const {
    float quotient = divide(x);
    quotient = ClampToMax(ClampToMin(quotient, low), high);
    return std::is_same_v<Q, int8_t> ? truncf(quotient) : quotient;
  }
};

// A team processes a group as if it were a row.
template <typename T, class Q, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    QuantizeGroups(Rows out, Rows input, GroupScales scales, GroupQuantization how, int64_t groups,
                   DivideBy by_groups) {
  ForRows<Team>(input.count * groups, [&](int64_t index, bool has_row) {
    const int64_t row = by_groups(index), group = index - row * groups;
    const int64_t packs = has_row ? CountPacks<T>(how.size) : 0;
    TeamRow<Team, T> x(GetRow<const T>(input, row) + group * how.size, how.size);
    x.Load();
    float largest = 0.0f;
    ForPacks<Team>(
        packs, [&](int k, auto pack) { largest = FindLargestMagnitude(x.Get(k, pack), largest); });
    x.KeepPacked();
    const float scale = ComputeGroupScale(Team::Reduce(largest, 0.0f, Max()), how);
    if (has_row && Team::Thread() == 0)
      GetRow<float>(scales.rows, row)[group * scales.column_stride] = scale;
    Q* to = GetRow<Q>(out, row) + group * how.size;
    const Quotient<Q> quotient{Divide(scale), how.low, how.high};
    ForPacks<Team>(packs, [&](int k, auto pack) {
      StorePart<Team::kAligned>(to, how.size, pack * kPerLoad<T>,
                                EncodeTransformed<Q>(x.Get(k, pack), quotient));
    });
  });
}

}  // namespace

void QuantizeRowGroups(const Rows& out, QType type, const Rows& input, const GroupScales& scales,
                       const GroupQuantization& how) {
  const int64_t groups = input.width / how.size;
  if (groups == 0) return;
  WithType(input.dtype, [&](auto element) {
    WithCode(type, [&](auto code) {
      using T = decltype(element);
      using Q = decltype(code);
      const bool aligned =
          HasWholePacks<T>(input) && HasWholePacks<T, Q>(out) && how.size % kPerLoad<T> == 0;
      const auto launch = [&](auto team, unsigned blocks, int threads) {
        Launch("per_token_group_quant", &QuantizeGroups<T, Q, decltype(team)>, blocks, threads, 0,
               out, input, scales, how, groups, DivideBy(groups));
      };
      if (aligned && CountPacks<T>(how.size) <= 8) {
        return launch(RowTeam<8, 1, true>(),
                      ChooseBlocks(input.count * groups, kWarpTeamThreads / 8), kWarpTeamThreads);
      }
      WithRowTeam<T>(input.count * groups, how.size, aligned, launch);
    });
  });
}

}  // namespace vllm
