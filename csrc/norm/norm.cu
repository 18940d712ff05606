// SPDX-License-Identifier: Apache-2.0
#include "norm/norm.h"

#include "norm/norm_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

// `out` may be `input`, because each thread reads its elements before it writes there. `residual`
// may be empty.
template <typename T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads, Team::kLeastBlocks)
    NormRows(Rows out, Rows input, Rows residual, const T* weight, float epsilon) {
  ForRows<Team>(input.count, [&](int64_t row, bool has_row) {
    T* sum = residual.data == nullptr ? nullptr : GetRow<T>(residual, row);
    const NormedRow<Team, T> normed(GetRow<const T>(input, row), sum, weight, input.width, epsilon,
                                    has_row);
    T* to = GetRow<T>(out, row);
    normed.ForNormed([&](int64_t pack, const auto& values) {
      StorePart<Team::kAligned>(to, out.width, pack * kPerLoad<T>, FromFloats<T>(values));
    });
  });
}

void LaunchNormalize(const char* name, const Rows& out, const Rows& input, const Rows& residual,
                     const void* weight, float epsilon) {
  WithType(input.dtype, [&](auto element) {
    using T = decltype(element);
    const bool aligned = HasWholePacks<T>(out) && HasWholePacks<T>(input) &&
                         (residual.data == nullptr || HasWholePacks<T>(residual)) &&
                         IsAligned(weight, 16);
    WithRowTeam<T>(input.count, input.width, aligned, [&](auto team, unsigned blocks, int threads) {
      Launch(name, &NormRows<T, decltype(team)>, blocks, threads, 0, out, input, residual,
             static_cast<const T*>(weight), epsilon);
    });
  });
}

}  // namespace

void NormalizeRms(const Rows& out, const Rows& input, const void* weight, float epsilon) {
  LaunchNormalize("rms_norm", out, input, Rows(), weight, epsilon);
}

void AddAndNormalizeRms(const Rows& input, const Rows& residual, const void* weight,
                        float epsilon) {
  LaunchNormalize("fused_add_rms_norm", input, input, residual, weight, epsilon);
}

}  // namespace vllm
