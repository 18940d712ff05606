// SPDX-License-Identifier: Apache-2.0
// The mathematics of root mean square normalisation, for all kernels that include it. Compiled once
// for each target.
#if defined(VLLM_NORM_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_NORM_NORM_INL_H_
#undef VLLM_NORM_NORM_INL_H_
#else
#define VLLM_NORM_NORM_INL_H_
#endif

#include <cmath>
#include <cstddef>

#include "hwy/highway.h"

#include "core/span-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

HWY_INLINE VF32 AddSquare(VF32 v, VF32 sum) { return hn::MulAdd(v, v, sum); }

// Returns 1 / sqrt(mean + epsilon), from four partial sums of squares.
HWY_INLINE float ComputeNormFactor(VF32 sum0, VF32 sum1, VF32 sum2, VF32 sum3, size_t width,
                                   float epsilon) {
  const VF32 total = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  return 1.0f / std::sqrt(hn::ReduceSum(F32(), total) / static_cast<float>(width) + epsilon);
}

// Returns 1 / sqrt(mean(row^2) + epsilon).
template <typename T>
HWY_INLINE float ComputeNormFactor(const T* row, size_t width, float epsilon) {
  const size_t lanes = hn::Lanes(F32());
  // Uses four sums, so that an addition need not wait for the previous one. AddAndComputeNormFactor
  // adds in the same order, so its results are bit-identical.
  VF32 sum0 = hn::Zero(F32()), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  size_t i = 0;
  for (; i + 4 * lanes <= width; i += 4 * lanes) {
    VF32 v0, v1, v2, v3;
    LoadSplit(row + i, v0, v1);
    LoadSplit(row + i + 2 * lanes, v2, v3);
    sum0 = AddSquare(v0, sum0);
    sum1 = AddSquare(v1, sum1);
    sum2 = AddSquare(v2, sum2);
    sum3 = AddSquare(v3, sum3);
  }
  for (; i < width; i += lanes)
    sum0 = AddSquare(LoadTail(row + i, HWY_MIN(lanes, width - i)), sum0);
  return ComputeNormFactor(sum0, sum1, sum2, sum3, width, epsilon);
}

// Adds two vectors in place. Returns the sums as they are rounded and stored.
template <typename T>
HWY_INLINE void AddTwo(const T* HWY_RESTRICT input, T* HWY_RESTRICT residual, VF32& sum0,
                       VF32& sum1) {
  VF32 residual0, residual1;
  LoadSplit(input, sum0, sum1);
  LoadSplit(residual, residual0, residual1);
  sum0 = hn::Add(sum0, residual0);
  sum1 = hn::Add(sum1, residual1);
  RoundAndStoreSplit(sum0, sum1, residual);
}

// residual += input. Returns ComputeNormFactor of the residual, which has been rounded to T.
template <typename T>
HWY_INLINE float AddAndComputeNormFactor(const T* HWY_RESTRICT input, T* HWY_RESTRICT residual,
                                         size_t width, float epsilon) {
  const size_t lanes = hn::Lanes(F32());
  VF32 sum0 = hn::Zero(F32()), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  size_t i = 0;
  for (; i + 4 * lanes <= width; i += 4 * lanes) {
    VF32 v0, v1, v2, v3;
    AddTwo(input + i, residual + i, v0, v1);
    AddTwo(input + i + 2 * lanes, residual + i + 2 * lanes, v2, v3);
    sum0 = AddSquare(v0, sum0);
    sum1 = AddSquare(v1, sum1);
    sum2 = AddSquare(v2, sum2);
    sum3 = AddSquare(v3, sum3);
  }
  for (; i < width; i += lanes) {
    const size_t n = HWY_MIN(lanes, width - i);
    const VF32 sum = RoundTo<T>(hn::Add(LoadTail(input + i, n), LoadTail(residual + i, n)));
    StoreTail(sum, residual + i, n);
    sum0 = AddSquare(sum, sum0);
  }
  return ComputeNormFactor(sum0, sum1, sum2, sum3, width, epsilon);
}

// A row times a factor and, if there is one, a weight, as a source of numbers (core/span-inl.h).
template <typename T, bool kWeight>
struct NormedRow {
  static constexpr bool kSplit = kSplits<T>;
  const T* x;  // not restrict: the result may be in the same place
  const T* HWY_RESTRICT weight;
  float factor;
  HWY_INLINE void ReadTwo(size_t i, VF32& v0, VF32& v1) const {
    const VF32 factors = hn::Set(F32(), factor);
    LoadSplit(x + i, v0, v1);
    v0 = hn::Mul(v0, factors);
    v1 = hn::Mul(v1, factors);
    if constexpr (kWeight) {
      VF32 weight0, weight1;
      LoadSplit(weight + i, weight0, weight1);
      v0 = hn::Mul(v0, weight0);
      v1 = hn::Mul(v1, weight1);
    }
  }
  HWY_INLINE VF32 ReadTail(size_t i, size_t n) const {
    const VF32 v = hn::Mul(LoadTail(x + i, n), hn::Set(F32(), factor));
    return kWeight ? hn::Mul(v, LoadTail(weight + i, n)) : v;
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_NORM_NORM_INL_H_
