// SPDX-License-Identifier: Apache-2.0
// Weights of four-bit numbers with scales for groups.
#include <cstdint>
#include <type_traits>

#include "core/gpu/launch.h"
#include "gemm/dot2_gpu.h"
#include "gemm/few_rows.h"
#include "gemm/few_rows_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

// Converts the eight elements of a word to pairs of T, plus kOffset<T>. Both are exact.
//
// In the lowest bits of the mantissa of 1024 (float16) or 128 (bfloat16), an element adds its
// value. Float16 numbers are then reduced to the range around zero with one addition for a pair;
// there is no such instruction for bfloat16.
template <typename T>
inline constexpr float kOffset = std::is_same_v<T, Fp16> ? -8.0f : 128.0f;

template <typename T>
__device__ __forceinline__ void Convert(uint32_t word, uint32_t (&pairs)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t elements = word >> (4 * j) & 0x000f000fu;
    if constexpr (std::is_same_v<T, Fp16>) {
      pairs[j] = AddHalves(elements | 0x64006400u, 0xe408e408u);  // -1032
    } else {
      pairs[j] = elements | 0x43004300u;
    }
  }
}

template <typename T>
inline constexpr uint32_t kOnes = std::is_same_v<T, Fp16> ? 0x3c003c00u : 0x3f803f80u;

template <typename T, ZeroPointType kZeros, int kRows_, bool kAligned>
struct Int4Source {
  using Output = T;
  static constexpr int kDepth = kQuantizedDepth;
  static constexpr int kRows = kRows_;
  static constexpr bool kTwoSteps = false;
  // Whether what is subtracted from an element is kOffset, already added.
  static constexpr bool kCentred = kZeros == ZeroPointType::kNone && std::is_same_v<T, Fp16>;
  struct Activations {
    WordPack<4> rows[kRows][2];
  };
  struct Weights {
    WordPack<2> columns[kColumns];
  };

  Int4Weight weight;

  __device__ __forceinline__ Activations LoadActivations(const FewRows& product, int64_t first_row,
                                                         int k) const {
    Activations loaded;
#pragma unroll
    for (int n = 0; n < kRows; ++n) {
      const auto* from = GetActivations<kAligned>(product, first_row, n, 2, k);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        loaded.rows[n][j] = LoadWords<kAligned, 4>(from + 16 * j, 2 * (product.depth - k) - 16 * j);
      }
    }
    return loaded;
  }
  __device__ __forceinline__ Weights LoadWeights(const FewRows& product,
                                                 const int64_t (&columns)[kColumns], int k) const {
    Weights loaded;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const auto* row =
          static_cast<const uint8_t*>(product.weight) + columns[i] * product.weight_stride;
      loaded.columns[i] = LoadWordsOnce<kAligned, 2>(row + k / 2, (product.depth - k) / 2);
    }
    return loaded;
  }
  // Returns what is subtracted from the elements of a group that Convert returns.
  __device__ __forceinline__ float GetZero(int64_t column, int group) const {
    if constexpr (kZeros == ZeroPointType::kNone) {
      return 8.0f + kOffset<T>;
    } else if constexpr (kZeros == ZeroPointType::kPacked) {
      const auto* words = static_cast<const uint32_t*>(weight.zeros);
      const uint32_t word = words[column / 8 * weight.zero_stride + group];
      return static_cast<float>(static_cast<int>(word >> (column % 8 * 4) & 15u)) + kOffset<T>;
    } else {
      const auto* zeros = static_cast<const T*>(weight.zeros);
      return ToFloat(zeros[column * weight.zero_stride + group]) + kOffset<T>;
    }
  }
  __device__ __forceinline__ void Multiply(const int64_t (&columns)[kColumns], int k,
                                           const Activations& activations, const Weights& weights,
                                           float (&sums)[kRows * kColumns]) const {
    const int group = k >> weight.group_bits;
    float products[kRows * kColumns] = {}, totals[kRows] = {};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t pairs[kColumns][4];
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        Convert<T>(weights.columns[i].items[j], pairs[i]);
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          if constexpr (!kHasDot2<T>) KeepPair(pairs[i][p]);
        }
      }
#pragma unroll
      for (int n = 0; n < kRows; ++n) {
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          uint32_t pair = activations.rows[n][j].items[p];
          if constexpr (!kHasDot2<T>) KeepPair(pair);
          if constexpr (!kCentred) totals[n] = Dot2<T>(pair, kOnes<T>, totals[n]);
#pragma unroll
          for (int i = 0; i < kColumns; ++i)
            products[n * kColumns + i] = Dot2<T>(pair, pairs[i][p], products[n * kColumns + i]);
        }
        FinishStep();
      }
    }
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float scale =
          ToFloat(static_cast<const T*>(weight.scales)[columns[i] * weight.scale_stride + group]);
      [[maybe_unused]] const float zero = GetZero(columns[i], group);
#pragma unroll
      for (int n = 0; n < kRows; ++n) {
        float product = products[n * kColumns + i];
        if constexpr (!kCentred) product = fmaf(-zero, totals[n], product);
        sums[n * kColumns + i] = fmaf(product, scale, sums[n * kColumns + i]);
      }
    }
  }
  __device__ __forceinline__ float Scale() const { return 1.0f; }
};

template <typename T, ZeroPointType kZeros>
void Run(const char* op, const FewRows& product, const Int4Weight& weight) {
  const FewRowsLaunch launch = DivideFewRows(product, kQuantizedDepth * kWarp, 1);
  if (AreAligned(product.weight, product.weight_stride, product.depth / 2, 8) &&
      AreActivationsAligned(product, 2)) {
    WithRowCount<kQuantizedRows>(product.rows, [&](auto count) {
      LaunchFewRows(op, launch, Int4Source<T, kZeros, decltype(count)::value, true>{weight});
    });
  } else {
    LaunchFewRows(op, launch, Int4Source<T, kZeros, 2, false>{weight});
  }
}

template <typename T>
void RunType(const char* op, const FewRows& product, const Int4Weight& weight) {
  switch (weight.zero_type) {
    case ZeroPointType::kNone:
      return Run<T, ZeroPointType::kNone>(op, product, weight);
    case ZeroPointType::kPacked:
      return Run<T, ZeroPointType::kPacked>(op, product, weight);
    case ZeroPointType::kFloating:
      return Run<T, ZeroPointType::kFloating>(op, product, weight);
  }
}

}  // namespace

void MultiplyFewRowsInt4(const char* op, const FewRows& product, const Int4Weight& weight) {
  if (product.type == DType::kFloat16) return RunType<Fp16>(op, product, weight);
  RunType<Bf16>(op, product, weight);
}

}  // namespace vllm
