// SPDX-License-Identifier: Apache-2.0
// Weights of 16-bit numbers.
#include "gemm/few_rows.h"

#include <type_traits>

#include "core/gpu/launch.h"
#include "gemm/dot2_gpu.h"
#include "gemm/few_rows_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kLaneDepth = 8;
constexpr int kTeamDepth = kLaneDepth * kWarp;
constexpr int kMostRowsAtOnce = 16;

template <typename T, int kRows_, bool kAligned>
struct HalfSource {
  using Output = T;
  static constexpr int kDepth = kLaneDepth;
  static constexpr int kRows = kRows_;
  static constexpr bool kTwoSteps = kRows <= 4;
  struct Activations {
    WordPack<4> rows[kRows];
  };
  struct Weights {
    WordPack<4> columns[kColumns];
  };

  __device__ __forceinline__ Activations LoadActivations(const FewRows& product, int64_t first_row,
                                                         int k) const {
    Activations loaded;
#pragma unroll
    for (int n = 0; n < kRows; ++n) {
      loaded.rows[n] = LoadWords<kAligned, 4>(GetActivations<kAligned>(product, first_row, n, 2, k),
                                              2 * (product.depth - k));
    }
    return loaded;
  }
  __device__ __forceinline__ Weights LoadWeights(const FewRows& product,
                                                 const int64_t (&columns)[kColumns], int k) const {
    Weights loaded;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const T* row = static_cast<const T*>(product.weight) + columns[i] * product.weight_stride;
      loaded.columns[i] = LoadWordsOnce<kAligned, 4>(row + k, 2 * (product.depth - k));
    }
    return loaded;
  }
  __device__ __forceinline__ void Multiply(const int64_t (&)[kColumns], int,
                                           const Activations& activations, const Weights& weights,
                                           float (&sums)[kRows * kColumns]) const {
    // Word by word: where a pair is converted first, few converted numbers are needed at once.
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t pairs[kColumns];
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        pairs[i] = weights.columns[i].items[j];
        if constexpr (!kHasDot2<T>) KeepPair(pairs[i]);
      }
#pragma unroll
      for (int n = 0; n < kRows; ++n) {
        uint32_t pair = activations.rows[n].items[j];
        if constexpr (!kHasDot2<T>) KeepPair(pair);
#pragma unroll
        for (int i = 0; i < kColumns; ++i)
          sums[n * kColumns + i] = Dot2<T>(pair, pairs[i], sums[n * kColumns + i]);
        if constexpr (!kHasDot2<T>) FinishStep();
      }
    }
  }
  __device__ __forceinline__ float Scale() const { return 1.0f; }
};

template <typename T>
__global__ void __launch_bounds__(kFewRowsThreads) AddPartsKernel(FewRowsLaunch launch) {
  const FewRows& product = launch.product;
  const int64_t count = product.rows * product.columns;
  for (int64_t i = int64_t{blockIdx.x} * kFewRowsThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * kFewRowsThreads) {
    float sum = 0;
    for (int64_t part = 0; part < launch.parts; ++part) sum += launch.partial[part * count + i];
    StoreResult<T>(product, i / product.columns, i % product.columns, sum);
  }
}

template <class F>
void With16Bits(DType type, F&& f) {
  if (type == DType::kFloat16) return f(Fp16());
  f(Bf16());
}

void Run(const char* op, const FewRowsLaunch& launch) {
  const FewRows& product = launch.product;
  const bool aligned =
      AreAligned(product.weight, 2 * product.weight_stride, 2 * product.depth, 16) &&
      AreActivationsAligned(product, 2);
  With16Bits(product.type, [&](auto element) {
    using T = decltype(element);
    WithRowCount<kMostRowsAtOnce>(product.rows, [&](auto count) {
      constexpr int kRows = decltype(count)::value;
      if (aligned) {
        LaunchFewRows(op, launch, HalfSource<T, kRows, true>());
      } else if (kRows == 1) {
        LaunchFewRows(op, launch, HalfSource<T, 1, false>());
      } else {
        LaunchFewRows(op, launch, HalfSource<T, 4, false>());
      }
    });
    if (launch.partial != nullptr) {
      Launch(op, AddPartsKernel<T>,
             dim3(ChooseBlocks(product.rows * product.columns, kFewRowsThreads)), kFewRowsThreads,
             0, launch);
    }
  });
}

FewRowsLaunch DivideInParts(const FewRows& product) {
  return DivideFewRows(product, kTeamDepth, kMostParts);
}

}  // namespace

void MultiplyFewRows(const char* op, const FewRows& product) {
  Run(op, DivideFewRows(product, kTeamDepth, 1));
}

int64_t CountParts(const FewRows& product) { return DivideInParts(product).parts; }

void MultiplyFewRowsInParts(const char* op, const FewRows& product, float* partial) {
  FewRowsLaunch launch = DivideInParts(product);
  launch.partial = launch.parts > 1 ? partial : nullptr;
  Run(op, launch);
}

}  // namespace vllm
