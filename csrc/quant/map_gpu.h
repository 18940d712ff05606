// SPDX-License-Identifier: Apache-2.0
// Kernels that quantise each element independently.
#pragma once

#include "core/gpu/launch.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"

namespace vllm::gpu {

inline constexpr int kMapThreads = 256;

// Blocks iterate over the pieces of a row along x and over the rows along y. f(row, column, items)
// returns the codes of kCount elements.
template <int kCount, typename T, class Q, class F>
__global__ void __launch_bounds__(kMapThreads) QuantizeElements(Rows out, Rows input, F f) {
  const int64_t steps = out.width / kCount;
  for (int64_t row = blockIdx.y; row < out.count; row += gridDim.y) {
    const T* from = GetRow<const T>(input, row);
    Q* to = GetRow<Q>(out, row);
    for (int64_t step = int64_t{blockIdx.x} * kMapThreads + threadIdx.x; step < steps;
         step += int64_t{gridDim.x} * kMapThreads) {
      StorePack(to + step * kCount, f(row, step * kCount, LoadPack<kCount>(from + step * kCount)));
    }
  }
}

template <typename T, class Q, class F>
void LaunchQuantize(const char* name, const Rows& out, const Rows& input, const F& f) {
  constexpr int kCount = kPerLoad<T>;
  if (HasWholePacks<T>(input) && HasWholePacks<T, Q>(out)) {
    Launch(name, &QuantizeElements<kCount, T, Q, F>,
           ChooseRowGrid(out.width / kCount, out.count, kMapThreads), kMapThreads, 0, out, input,
           f);
  } else {
    Launch(name, &QuantizeElements<1, T, Q, F>, ChooseRowGrid(out.width, out.count, kMapThreads),
           kMapThreads, 0, out, input, f);
  }
}

// For an f that ignores rows and columns: contiguous rows are treated as one long row.
template <typename T, class Q, class F>
void LaunchQuantizeAlike(const char* name, const Rows& out, const Rows& input, const F& f) {
  if (IsOnePiece(out) && IsOnePiece(input))
    return LaunchQuantize<T, Q>(name, JoinRows(out), JoinRows(input), f);
  LaunchQuantize<T, Q>(name, out, input, f);
}

}  // namespace vllm::gpu
