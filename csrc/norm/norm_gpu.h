// SPDX-License-Identifier: Apache-2.0
// What GPU kernels share that normalise rows and do more.
#pragma once

#include "core/gpu/row_teams.h"

namespace vllm::gpu {

// 1 / sqrt(mean + epsilon)
__device__ __forceinline__ float NormFactor(float squares, int64_t width, float epsilon) {
  return 1.0f / sqrtf(squares / static_cast<float>(width) + epsilon);
}

// A row and its weight, as a team has it.
template <class Team, typename T>
struct NormedRow {
  static constexpr int kCount = kPerLoad<T>;

  TeamRow<Team, T> x;
  TeamRow<Team, T> weight;
  int64_t packs;
  bool weighted;
  float factor;

  // Loads a row; adds it to the residual's row unless that is null, and goes on with the sum as it is rounded and stored; finds the factor.
  // Without a row of its own a team passes `there` false.
  __device__ __forceinline__ NormedRow(const T* row, T* residual, const T* weights, int64_t width, float epsilon, bool there)
      : x(row, width), weight(weights, width), packs(there ? PacksOf<T>(width) : 0), weighted(weights != nullptr) {
    x.Load(packs);
    if (weighted) weight.Load(packs);
    float squares = 0.0f;
    if (residual == nullptr) {
      ForPacks<Team>(packs, [&](int k, int64_t pack) { AddSquares(x.Get(k, pack), squares); });
    } else {
      TeamRow<Team, T> other(residual, width);
      other.Load(packs);
      ForPacks<Team>(packs, [&](int k, int64_t pack) {
        Pack<T, kCount> sum = x.Get(k, pack);
        const Pack<T, kCount> addend = other.Get(k, pack);
#pragma unroll
        for (int j = 0; j < kCount; ++j) sum.items[j] = FromFloat<T>(ToFloat(sum.items[j]) + ToFloat(addend.items[j]));
        StorePart<Team::kAligned>(residual, width, pack * kCount, sum);
        x.Set(k, sum);
        AddSquares(sum, squares);
      });
      x.ReadFrom(residual);
    }
    factor = NormFactor(Team::Reduce(squares, 0.0f, Sum()), width, epsilon);
  }

  // Calls f(pack, values) with the normalised numbers of each pack of this thread.
  template <class F>
  __device__ __forceinline__ void ForNormed(F f) const {
    ForPacks<Team>(packs, [&](int k, int64_t pack) {
      const Pack<T, kCount> items = x.Get(k, pack);
      float values[kCount];
#pragma unroll
      for (int j = 0; j < kCount; ++j) values[j] = ToFloat(items.items[j]) * factor;
      if (weighted) {
        const Pack<T, kCount> weights = weight.Get(k, pack);
#pragma unroll
        for (int j = 0; j < kCount; ++j) values[j] *= ToFloat(weights.items[j]);
      }
      f(pack, values);
    });
  }

 private:
  static __device__ __forceinline__ void AddSquares(const Pack<T, kCount>& pack, float& squares) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float value = ToFloat(pack.items[j]);
      squares = fmaf(value, value, squares);
    }
  }
};

}  // namespace vllm::gpu
