// SPDX-License-Identifier: Apache-2.0
// Scaled products for tensor cores that warps supply from shared memory (8.0 and later), with
// CUTLASS 2.x kernels.
#pragma once

// CUTLASS's visitor headers require this one but do not include it.
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include <cutlass/epilogue/threadblock/fusion/visitors.hpp>
#include <cutlass/gemm/kernel/default_gemm_universal_with_visitor.h>

#include "gemm/scaled_mm.h"
#include "gemm/scaled_mm_status.h"

namespace vllm::sm80 {

// A leaf of CUTLASS's visitor tree that computes the results from a thread's accumulators in
// float32: it applies the scales, zero points and bias.
template <typename ThreadMap, typename Accumulator, typename Bias>
struct Dequantize : cutlass::epilogue::threadblock::VisitorImpl2x<> {
  struct Arguments {
    const float* a_scales = nullptr;
    const float* b_scales = nullptr;
    const Bias* bias = nullptr;
    const int32_t* zeros = nullptr;
    const int32_t* zero_sums = nullptr;
    bool a_scale_per_row = false;
    bool b_scale_per_column = false;
  };
  using Params = Arguments;
  struct SharedStorage {};

  template <typename ProblemShape>
  static constexpr Params to_underlying_arguments(const ProblemShape&, const Arguments& arguments,
                                                  void*) {
    return arguments;
  }
  template <typename ProblemShape>
  static size_t get_workspace_size(const ProblemShape&, const Arguments&) {
    return 0;
  }

  CUTLASS_HOST_DEVICE Dequantize() {}
  CUTLASS_HOST_DEVICE Dequantize(const Params& given, const SharedStorage&) : params(&given) {}

  const Params* params = nullptr;

  static constexpr int kVector = ThreadMap::kElementsPerAccess;
  static constexpr int kColumns = ThreadMap::Base::Iterations::kColumn;

  template <typename Coordinates>
  struct Callbacks : cutlass::epilogue::threadblock::EmptyCallbacks {
    Coordinates at;  // (element, column, row, step) of this thread → (m, n) in the result
    const Params* params;
    int rows, columns;
    float scales[kColumns][kVector];
    float biases[kColumns][kVector];
    int32_t zero_sums[kColumns][kVector];

    CUTLASS_DEVICE Callbacks(const Coordinates& coordinates, const Params* given, int m, int n)
        : at(coordinates), params(given), rows(m), columns(n) {}

    // The values of a column are the same in all steps.
    CUTLASS_DEVICE void begin_epilogue() {
      CUTLASS_PRAGMA_UNROLL
      for (int column = 0; column < kColumns; ++column) {
        // The number of columns is a multiple of a vector, so a vector is entirely inside or
        // outside.
        const int first = cute::get<1>(at(0, column, 0, 0));
        const bool inside = first < columns;
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < kVector; ++i) {
          scales[column][i] =
              inside ? __ldg(params->b_scales + (params->b_scale_per_column ? first + i : 0)) : 0.f;
          biases[column][i] =
              inside && params->bias != nullptr ? static_cast<float>(params->bias[first + i]) : 0.f;
          zero_sums[column][i] =
              inside && params->zero_sums != nullptr ? __ldg(params->zero_sums + first + i) : 0;
        }
      }
    }

    template <typename Element, int kSize>
    CUTLASS_DEVICE cutlass::Array<float, kSize> visit(int step, int row, int column, int,
                                                      const cutlass::Array<Element, kSize>& sums) {
      static_assert(kSize == kVector);
      const int m = cute::get<0>(at(0, column, row, step));
      const bool inside = m < rows;
      const float scale =
          inside ? __ldg(params->a_scales + (params->a_scale_per_row ? m : 0)) : 0.f;
      cutlass::Array<float, kSize> results;
      if constexpr (cutlass::platform::is_same<Accumulator, int32_t>::value) {
        const int32_t zero = inside && params->zeros != nullptr ? __ldg(params->zeros + m) : 1;
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < kSize; ++i) {
          // Modulo 2^32, as the sums are: correct if the difference fits.
          const uint32_t shifted =
              static_cast<uint32_t>(sums[i]) -
              static_cast<uint32_t>(zero) * static_cast<uint32_t>(zero_sums[column][i]);
          results[i] =
              scale * (scales[column][i] * static_cast<float>(static_cast<int32_t>(shifted))) +
              biases[column][i];
        }
      } else {
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < kSize; ++i)
          results[i] = scale * (scales[column][i] * sums[i]) + biases[column][i];
      }
      return results;
    }
  };

  template <typename ProblemShape>
  CUTLASS_DEVICE auto get_callbacks(cutlass::gemm::GemmCoord tile, int thread, ProblemShape shape) {
    using namespace cute;
    auto coordinates =
        group_modes<3, 6>(ThreadMap::partition(make_identity_tensor(shape), thread, tile));
    return Callbacks<decltype(coordinates)>(coordinates, params, static_cast<int>(get<0>(shape)),
                                            static_cast<int>(get<1>(shape)));
  }
};

// One kernel. `Tile` is the part of the product of a thread block and `Warp` that of a warp, as
// cutlass::gemm::GemmShape.
template <typename Element, typename Accumulator, typename Out, typename Arch, typename Operator,
          typename Tile, typename Warp, int kStages>
struct Kernel {
  using RowMajor = cutlass::layout::RowMajor;
  using ColumnMajor = cutlass::layout::ColumnMajor;
  static constexpr int kIn = 16 / sizeof(Element);
  static constexpr int kOut = 16 / sizeof(Out);
  using ThreadMap =
      cutlass::epilogue::threadblock::OutputTileThreadLayout<Tile, Warp, Out, kOut, 1>;
  using Results = Dequantize<ThreadMap, Accumulator, Out>;
  using Store =
      cutlass::epilogue::threadblock::VisitorAuxStore<ThreadMap, Out,
                                                      cutlass::FloatRoundStyle::round_to_nearest,
                                                      cute::Stride<int64_t, cute::_1, cute::_0>>;
  using Epilogue = cutlass::epilogue::threadblock::Sm80EVT<Store, Results>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<
      typename cutlass::gemm::kernel::DefaultGemmWithVisitor<
          Element, RowMajor, cutlass::ComplexTransform::kNone, kIn, Element, ColumnMajor,
          cutlass::ComplexTransform::kNone, kIn, Out, RowMajor, kOut, Accumulator, float,
          cutlass::arch::OpClassTensorOp, Arch, Tile, Warp, cutlass::gemm::GemmShape<16, 8, 32>,
          Epilogue, cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<8>, kStages,
          Operator, 1>::GemmKernel>;
  // Devices of 8.6 and 8.9 have less shared memory than 8.0 and run the same code.
  static_assert(sizeof(typename Gemm::GemmKernel::SharedStorage) <= 99 * 1024);

  static void Run(const ScaledMm& product) {
    typename Results::Arguments results;
    results.a_scales = product.a_scales;
    results.b_scales = product.b_scales;
    results.bias = static_cast<const Out*>(product.bias);
    results.zeros = product.zeros;
    results.zero_sums = product.zero_sums;
    results.a_scale_per_row = product.a_scale_per_row;
    results.b_scale_per_column = product.b_scale_per_column;
    typename Epilogue::Arguments epilogue{
        results, {static_cast<Out*>(product.out), {product.out_stride, cute::_1{}, cute::_0{}}}};
    typename Gemm::Arguments arguments(cutlass::gemm::GemmUniversalMode::kGemm,
                                       {product.rows, product.columns, product.depth}, 1, epilogue,
                                       product.a, product.b, nullptr, nullptr, 0, 0, 0, 0,
                                       product.a_stride, product.b_stride, 0, 0);
    Gemm gemm;
    CheckCutlass(gemm.initialize(arguments));
    CheckCutlass(gemm.run(static_cast<cudaStream_t>(gpu::GetCurrentStream())));
  }
};

template <int kM, int kN, int kK>
using Shape = cutlass::gemm::GemmShape<kM, kN, kK>;

// With few rows, reading B is the bottleneck: thin tiles make many thread blocks read. With many
// rows, the tensor cores are: wide tiles reuse each element often.
template <typename Element, typename Accumulator, typename Arch, typename Operator, typename Out>
void Run(const ScaledMm& product) {
  if (product.rows <= 16) {
    Kernel<Element, Accumulator, Out, Arch, Operator, Shape<16, 64, 128>, Shape<16, 64, 64>,
           5>::Run(product);
  } else if (product.rows <= 64) {
    Kernel<Element, Accumulator, Out, Arch, Operator, Shape<64, 64, 128>, Shape<32, 64, 64>,
           4>::Run(product);
  } else {
    Kernel<Element, Accumulator, Out, Arch, Operator, Shape<128, 128, 64>, Shape<64, 64, 64>,
           5>::Run(product);
  }
}

}  // namespace vllm::sm80
