// SPDX-License-Identifier: Apache-2.0
// Scaled products for Hopper's tensor cores (9.0a), which warpgroups supply from shared memory that
// TMA fills, with CUTLASS 3.x kernels.
#pragma once

#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "gemm/scaled_mm.h"
#include "gemm/scaled_mm_status.h"

namespace vllm::sm90 {

namespace fusion = cutlass::epilogue::fusion;
using cute::_0;
using cute::_1;

inline constexpr auto kNearest = cutlass::FloatRoundStyle::round_to_nearest;

// Returns the sums of products unchanged.
template <typename Accumulator, typename Tile>
struct Sums {
  using Node = fusion::Sm90AccFetch;
  static typename Node::Arguments Arguments(const ScaledMm&) { return {}; }
};

// Returns the sums of int8 without the contribution of zero points. int32 arithmetic is modulo 2^32
// on GPUs: correct if the difference fits.
template <typename Tile>
struct Sums<int32_t, Tile> {
  using Zeros = fusion::Sm90ColBroadcast<0, Tile, int32_t>;
  using ZeroSums = fusion::Sm90RowBroadcast<0, Tile, int32_t>;
  using Added =
      fusion::Sm90EVT<fusion::Sm90Compute<cutlass::multiplies, int32_t, int32_t, kNearest>, Zeros,
                      ZeroSums>;
  using Node = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::minus, int32_t, int32_t, kNearest>,
                               fusion::Sm90AccFetch, Added>;
  static typename Node::Arguments Arguments(const ScaledMm& product) {
    return {{}, {{product.zeros, 1, {}}, {product.zero_sums, 0, {}}, {}}, {}};
  }
};

// a_scale * (b_scale * sums) + bias. The flag in its stride says whether a scale is a vector or one
// number for all.
template <typename Accumulator, typename Out, typename Tile>
struct Results {
  using AScales = fusion::Sm90ColBroadcast<0, Tile, float, float, cute::Stride<bool, _0, _0>>;
  using BScales = fusion::Sm90RowBroadcast<0, Tile, float, float, cute::Stride<_0, bool, _0>>;
  using Bias = fusion::Sm90RowBroadcast<0, Tile, Out, float>;
  using Scaled = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::multiplies, float, float, kNearest>,
                                 BScales, typename Sums<Accumulator, Tile>::Node>;
  using Node =
      fusion::Sm90EVT<fusion::Sm90Compute<cutlass::homogeneous_multiply_add, Out, float, kNearest>,
                      AScales, Scaled, Bias>;
  static typename Node::Arguments Arguments(const ScaledMm& product) {
    return {{product.a_scales, 0.f, {product.a_scale_per_row, _0{}, _0{}}},
            {{product.b_scales, 0.f, {_0{}, product.b_scale_per_column, _0{}}},
             Sums<Accumulator, Tile>::Arguments(product),
             {}},
            {static_cast<const Out*>(product.bias), Out(0), {}},
            {}};
  }
};

// One kernel. `Tile` is the part of the product of a thread block; the thread blocks of a `Cluster`
// share TMA copies.
template <typename Element, typename Accumulator, typename Out, typename Schedule, typename Tile,
          typename Cluster>
struct Kernel {
  using RowMajor = cutlass::layout::RowMajor;
  using ColumnMajor = cutlass::layout::ColumnMajor;
  static constexpr int kIn = 16 / sizeof(Element);
  static constexpr int kOut = 16 / sizeof(Out);
  using Arch = cutlass::arch::Sm90;
  using Class = cutlass::arch::OpClassTensorOp;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      Arch, Class, Tile, Cluster, cutlass::epilogue::collective::EpilogueTileAuto, Accumulator,
      float, void, RowMajor, kOut, Out, RowMajor, kOut, cutlass::epilogue::TmaWarpSpecialized,
      typename Results<Accumulator, Out, Tile>::Node>::CollectiveOp;
  using Stages = cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
      sizeof(typename Epilogue::SharedStorage))>;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      Arch, Class, Element, RowMajor, kIn, Element, ColumnMajor, kIn, Accumulator, Tile, Cluster,
      Stages, Schedule>::CollectiveOp;
  // A distinct type, so that the kernel's name is short and belongs to this library.
  struct Device
      : cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue> {
  };
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Device>;

  static void Run(const ScaledMm& product) {
    typename Gemm::Arguments arguments{cutlass::gemm::GemmUniversalMode::kGemm,
                                       {product.rows, product.columns, product.depth, 1},
                                       {static_cast<const Element*>(product.a),
                                        {product.a_stride, _1{}, int64_t{0}},
                                        static_cast<const Element*>(product.b),
                                        {product.b_stride, _1{}, int64_t{0}}},
                                       {Results<Accumulator, Out, Tile>::Arguments(product),
                                        nullptr,
                                        {},
                                        static_cast<Out*>(product.out),
                                        {product.out_stride, _1{}, int64_t{0}}},
                                       {}};
    // Queried once for each process, not by CUTLASS for each launch.
    cudaGetDevice(&arguments.hw_info.device_id);
    arguments.hw_info.sm_count = gpu::GetMultiprocessorCount();
    if (Gemm::get_workspace_size(arguments) != 0)
      throw std::runtime_error(
          "cutlass_scaled_mm: CUTLASS requires a workspace, expected a kernel without one");
    CheckCutlass(Gemm::can_implement(arguments));
    Gemm gemm;
    const auto stream = static_cast<cudaStream_t>(gpu::GetCurrentStream());
    CheckCutlass(gemm.initialize(arguments, nullptr, stream));
    CheckCutlass(gemm.run(stream));
  }
};

template <int kM, int kN, int kK>
using Shape = cute::Shape<cute::Int<kM>, cute::Int<kN>, cute::Int<kK>>;

// With few rows, reading B is the bottleneck: thin tiles make many thread blocks read, and clusters
// share A. With many rows, the tensor cores are: tiles are wide, and clusters share B.
template <typename Element, typename Accumulator, typename Schedule, typename Out>
void Run(const ScaledMm& product) {
  if (product.rows <= 64) {
    Kernel<Element, Accumulator, Out, Schedule, Shape<64, 64, 128>, Shape<1, 4, 1>>::Run(product);
  } else if (product.rows <= 128) {
    Kernel<Element, Accumulator, Out, Schedule, Shape<64, 128, 128>, Shape<2, 1, 1>>::Run(product);
  } else {
    Kernel<Element, Accumulator, Out, Schedule, Shape<128, 128, 128>, Shape<2, 1, 1>>::Run(product);
  }
}

template <typename Out>
void RunInt8(const ScaledMm& product) {
  Run<int8_t, int32_t, cutlass::gemm::KernelTmaWarpSpecializedPingpong, Out>(product);
}

template <typename Out>
void RunFp8(const ScaledMm& product) {
  Run<cutlass::float_e4m3_t, float, cutlass::gemm::KernelTmaWarpSpecializedPingpongFP8FastAccum,
      Out>(product);
}

}  // namespace vllm::sm90
