// SPDX-License-Identifier: Apache-2.0
#include "moe/sum.h"

#include <cstdint>

#include "core/gpu/launch.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kThreads = 256;

// A thread sums kCount elements of a row a step. Blocks iterate over the pieces of a row along x
// and over the tokens along y.
template <int kCount, typename T>
__global__ void __launch_bounds__(kThreads)
    SumTokens(Rows out, Rows input, int64_t topk, TakenRoutes taken) {
  const int64_t steps = out.width / kCount;
  for (int64_t token = blockIdx.y; token < out.count; token += gridDim.y) {
    for (int64_t step = int64_t{blockIdx.x} * kThreads + threadIdx.x; step < steps;
         step += int64_t{gridDim.x} * kThreads) {
      float sum[kCount] = {};
#pragma unroll 4
      for (int64_t choice = 0; choice < topk; ++choice) {
        if (!taken.HasExpert(token, choice)) continue;
        const Pack<T, kCount> row =
            LoadPack<kCount>(input.Row<const T>(token * topk + choice) + step * kCount);
#pragma unroll
        for (int k = 0; k < kCount; ++k) sum[k] += ToFloat(row.items[k]);
      }
      Pack<T, kCount> rounded;
#pragma unroll
      for (int k = 0; k < kCount; ++k) rounded.items[k] = FromFloat<T>(sum[k]);
      StorePack(out.Row<T>(token) + step * kCount, rounded);
    }
  }
}

}  // namespace

void SumChoices(const Rows& out, const Rows& input, int64_t topk, const TakenRoutes& taken) {
  WithType(out.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kCount = kPerLoad<T>;
    if (out.width % kCount == 0 && AreRowsAligned(out, sizeof(T), 16) &&
        AreRowsAligned(input, sizeof(T), 16)) {
      Launch("moe_sum", &SumTokens<kCount, T>,
             ChooseRowGrid(out.width / kCount, out.count, kThreads), kThreads, 0, out, input, topk,
             taken);
    } else {
      Launch("moe_sum", &SumTokens<1, T>, ChooseRowGrid(out.width, out.count, kThreads), kThreads,
             0, out, input, topk, taken);
    }
  });
}

}  // namespace vllm
