// SPDX-License-Identifier: Apache-2.0
// Weights and activations of eight-bit floating-point numbers. The kernels convert them to float16,
// which has all their values, without an architecture's own conversions: those know one of the two
// codes.
#include <cstdint>

#include "core/gpu/launch.h"
#include "gemm/dot2_gpu.h"
#include "gemm/few_rows.h"
#include "gemm/few_rows_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

// Returns bits that are zero exactly if none of the four numbers is NaN.
template <Fp8Code kCode>
__device__ __forceinline__ uint32_t FindNaN(uint32_t codes) {
  if constexpr (kCode == Fp8Code::kE4M3FN) {
    // NaN has all bits but the sign set.
    return ((codes & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
  } else {
    // NaN is 0x80, so one of these bytes is zero.
    const uint32_t zeros = codes ^ 0x80808080u;
    return (zeros - 0x01010101u) & ~zeros & 0x80808080u;
  }
}

// Converts the first and third of four numbers to a pair of float16. Finite numbers are exact.
template <Fp8Code kCode>
__device__ __forceinline__ uint32_t ConvertEven(uint32_t codes) {
  // As the exponent of a float16, the exponent is too small by the difference of the biases. The
  // multiplication corrects that for subnormal numbers, too.
  constexpr uint32_t kFactor = kCode == Fp8Code::kE4M3FN ? 0x5c005c00u : 0x58005800u;  // 2^8, 2^7
  return MultiplyHalves((codes & 0x007f007fu) << 7 | (codes & 0x00800080u) << 8, kFactor);
}

template <Fp8Code kCode, typename T, int kRows_, bool kAligned>
struct Fp8Source {
  using Output = T;
  static constexpr int kDepth = kQuantizedDepth;
  static constexpr int kRows = kRows_;
  static constexpr bool kTwoSteps = false;
  struct Activations {
    WordPack<4> rows[kRows];
  };
  struct Weights {
    WordPack<4> columns[kColumns];
  };

  const float* activation_scale;
  const float* weight_scale;

  __device__ __forceinline__ Activations LoadActivations(const FewRows& product, int64_t first_row,
                                                         int k) const {
    Activations loaded;
#pragma unroll
    for (int n = 0; n < kRows; ++n) {
      loaded.rows[n] = LoadWords<kAligned, 4>(GetActivations<kAligned>(product, first_row, n, 1, k),
                                              product.depth - k);
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
      loaded.columns[i] = LoadWordsOnce<kAligned, 4>(row + k, product.depth - k);
    }
    return loaded;
  }
  __device__ __forceinline__ void Multiply(const int64_t (&)[kColumns], int,
                                           const Activations& activations, const Weights& weights,
                                           float (&sums)[kRows * kColumns]) const {
    uint32_t rows_nan[kRows] = {}, columns_nan[kColumns] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t even[kColumns], odd[kColumns];
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const uint32_t codes = weights.columns[i].items[j];
        columns_nan[i] |= FindNaN<kCode>(codes);
        even[i] = ConvertEven<kCode>(codes);
        odd[i] = ConvertEven<kCode>(codes >> 8);
      }
#pragma unroll
      for (int n = 0; n < kRows; ++n) {
        const uint32_t codes = activations.rows[n].items[j];
        rows_nan[n] |= FindNaN<kCode>(codes);
        const uint32_t row_even = ConvertEven<kCode>(codes),
                       row_odd = ConvertEven<kCode>(codes >> 8);
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          float& sum = sums[n * kColumns + i];
          sum = Dot2<Fp16>(row_odd, odd[i], Dot2<Fp16>(row_even, even[i], sum));
        }
      }
      FinishStep();
    }
    const float nan = BitsToFloat(0x7fc00000u);
#pragma unroll
    for (int n = 0; n < kRows; ++n) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        if ((rows_nan[n] | columns_nan[i]) != 0) sums[n * kColumns + i] = nan;
      }
    }
  }
  __device__ __forceinline__ float Scale() const { return *activation_scale * *weight_scale; }
};

template <Fp8Code kCode, typename T>
void Run(const char* op, const FewRows& product, const float* activation_scale,
         const float* weight_scale) {
  const FewRowsLaunch launch = DivideFewRows(product, kQuantizedDepth * kWarp, 1);
  if (AreAligned(product.weight, product.weight_stride, product.depth, 16) &&
      AreActivationsAligned(product, 1)) {
    WithRowCount<kQuantizedRows>(product.rows, [&](auto count) {
      LaunchFewRows(
          op, launch,
          Fp8Source<kCode, T, decltype(count)::value, true>{activation_scale, weight_scale});
    });
  } else {
    LaunchFewRows(op, launch, Fp8Source<kCode, T, 2, false>{activation_scale, weight_scale});
  }
}

template <Fp8Code kCode>
void RunCode(const char* op, const FewRows& product, const float* activation_scale,
             const float* weight_scale) {
  if (product.type == DType::kFloat16)
    return Run<kCode, Fp16>(op, product, activation_scale, weight_scale);
  Run<kCode, Bf16>(op, product, activation_scale, weight_scale);
}

}  // namespace

void MultiplyFewRowsFp8(const char* op, const FewRows& product, Fp8Code code,
                        const float* activation_scale, const float* weight_scale) {
  if (code == Fp8Code::kE4M3FN)
    return RunCode<Fp8Code::kE4M3FN>(op, product, activation_scale, weight_scale);
  RunCode<Fp8Code::kE4M3FNUZ>(op, product, activation_scale, weight_scale);
}

}  // namespace vllm
