// SPDX-License-Identifier: Apache-2.0
// Normalises rows in GPU kernels.
#pragma once

#include "core/gpu/row_teams.h"

namespace vllm::gpu {

// Returns 1 / sqrt(mean + epsilon).
__device__ __forceinline__ float ComputeNormFactor(float squares, int64_t width, float epsilon) {
  return 1.0f / sqrtf(squares / static_cast<float>(width) + epsilon);
}

// A team's parts of a row and its weight.
template <class Team, typename T>
struct NormedRow {
  static constexpr int kCount = kPerLoad<T>;

  TeamRow<Team, T> x;
  // The weight is kept in registers only if they suffice; otherwise it is read again, through the
  // caches.
  TeamRow<Team, T, (Team::kHeld > 0 && Team::kHeld <= 2)> weight;
  int64_t packs;
  bool weighted;
  float factor;

  // Loads a row. If `residual` is not null, adds the row to it and continues with the sum as it is
  // rounded and stored. Computes the factor. A team without a row passes `has_row` false.
  __device__ __forceinline__ NormedRow(const T* row, T* residual, const T* weights, int64_t width,
                                       float epsilon, bool has_row)
      : x(row, width),
        weight(weights != nullptr ? weights : row, width),
        packs(has_row ? CountPacks<T>(width) : 0),
        weighted(weights != nullptr) {
    // A missing operand is replaced by the row itself, so that the load is unconditional: see
    // TeamRow::Load.
    TeamRow<Team, T> other(residual != nullptr ? residual : row, width);
    x.Load();
    other.Load();
    weight.Load();
    float squares = 0.0f;
    if (residual == nullptr) {
      ForPacks<Team>(packs, [&](int k, auto pack) { AddSquares(x.Get(k, pack), squares); });
    } else {
      ForPacks<Team>(packs, [&](int k, auto pack) {
        const Pack<T, kCount> from_input = x.Get(k, pack), from_residual = other.Get(k, pack);
        float sums[kCount];
#pragma unroll
        for (int j = 0; j < kCount; ++j)
          sums[j] = ToFloat(from_input.items[j]) + ToFloat(from_residual.items[j]);
        const Pack<T, kCount> sum = FromFloats<T>(sums);
        StorePart<Team::kAligned>(residual, width, pack * kCount, sum);
        x.Set(k, sum);
        AddSquares(sum, squares);
      });
      x.ReadFrom(residual);
    }
    x.KeepPacked();
    factor = ComputeNormFactor(Team::Reduce(squares, 0.0f, Sum()), width, epsilon);
  }

  // For use between two calls of ForNormed.
  __device__ __forceinline__ void KeepPacked() {
    x.KeepPacked();
    weight.KeepPacked();
  }

  // Returns the normalised numbers of a pack of this thread.
  __device__ __forceinline__ void Get(int k, int64_t pack, float (&values)[kCount]) const {
    const Pack<T, kCount> items = x.Get(k, pack);
#pragma unroll
    for (int j = 0; j < kCount; ++j) values[j] = ToFloat(items.items[j]) * factor;
    if (!weighted) return;
    const Pack<T, kCount> weights = weight.Get(k, pack);
#pragma unroll
    for (int j = 0; j < kCount; ++j) values[j] *= ToFloat(weights.items[j]);
  }

  // Calls f(pack, values) with the normalised numbers of each pack.
  template <class F>
  __device__ __forceinline__ void ForNormed(F f) const {
    ForPacks<Team>(packs, [&](int k, auto pack) {
      float values[kCount];
      Get(k, pack, values);
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

// The operands of kernels whose results are codes. `residual` may be empty.
struct NormOperands {
  Rows out, input, residual;
  const void* weight;
  float epsilon;

  template <typename T, class Team>
  __device__ __forceinline__ NormedRow<Team, T> Row(int64_t row, bool has_row) const {
    T* sum = residual.data == nullptr ? nullptr : GetRow<T>(residual, row);
    return {GetRow<const T>(input, row),
            sum,
            static_cast<const T*>(weight),
            input.width,
            epsilon,
            has_row};
  }

  // Returns whether rows of T and of their codes consist of whole packs.
  template <typename T, class Q>
  bool AreWholePacks() const {
    return HasWholePacks<T>(input) && HasWholePacks<T, Q>(out) && IsAligned(weight, 16) &&
           (residual.data == nullptr || HasWholePacks<T>(residual));
  }
};

inline NormOperands MakeNormOperands(const Rows& out, const Rows& input, const Rows* residual,
                                     const void* weight, float epsilon) {
  return {out, input, residual == nullptr ? Rows() : *residual, weight, epsilon};
}

}  // namespace vllm::gpu
