// SPDX-License-Identifier: Apache-2.0
// Registers the FlashAttention 3 kernels that this library contains. Each record of kernels.toml
// compiles its units and the file here that registers them, so exactly the linked kernels are
// registered.
#pragma once

#include <cuda_runtime_api.h>

// FlashAttention's header requires the types of the CUDA runtime but does not include them.
#include <flash.h>

namespace cutlass {
struct bfloat16_t;
struct half_t;
}  // namespace cutlass

namespace vllm::flash3 {

using Params = Flash_fwd_params;
using Launch = void (*)(Params&, cudaStream_t);
using CombineLaunch = void (*)(Params&, cudaStream_t, bool);

// The head sizes that FlashAttention has kernels for. Other sizes use the next larger one.
inline constexpr int kHeadSizes[] = {64, 96, 128, 192, 256};
inline constexpr int kHeadSizeCount = sizeof(kHeadSizes) / sizeof(kHeadSizes[0]);
// The kernels support this architecture only.
inline constexpr int kArchitecture = 90;

// The variant of a head size and dtype that one unit is compiled for:
//   split     keys are divided among thread blocks
//   paged     rows of keys are looked up one by one, in pages of any size; otherwise whole blocks
//             are loaded, also from large pages
//   softcap   scores are capped
//   packed    heads that share keys are rows of one tile; always true if split or paged
struct Variant {
  bool split, paged, softcap, packed;
};
inline constexpr int kVariantCount = 16;
constexpr int GetIndex(Variant variant) {
  return variant.split * 8 + variant.paged * 4 + variant.softcap * 2 + variant.packed;
}

// kernels.toml defines FLASHATTENTION_DISABLE_APPENDKV both for the units of a record and for the
// file that registers them.
#if defined(FLASHATTENTION_DISABLE_APPENDKV)
constexpr bool kAppends = false;
#else
constexpr bool kAppends = true;
#endif

template <typename Element>
inline constexpr bool kIsBFloat16 = false;
template <>
inline constexpr bool kIsBFloat16<cutlass::bfloat16_t> = true;

void Register(int head_size, bool bfloat16, Variant variant, Launch launch, bool appends);

template <typename Element, int kHeadSize, bool kSplit, bool kPaged, bool kSoftcap, bool kPacked>
struct Unit {
  Unit() {
    Register(kHeadSize, kIsBFloat16<Element>, {kSplit, kPaged, kSoftcap, kPacked},
             &run_mha_fwd_<kArchitecture, Element, kHeadSize, kHeadSize, kSplit, kPaged, kSoftcap,
                           kPacked>,
             kAppends);
  }
};

template <typename Element, int kHeadSize>
using Whole = Unit<Element, kHeadSize, false, false, false, false>;
template <typename Element, int kHeadSize>
using Paged = Unit<Element, kHeadSize, false, true, false, true>;

// The constructors of its members register all variants except Whole and Paged.
template <typename Element, int kHeadSize>
struct Variants {
  Unit<Element, kHeadSize, false, false, false, true> packed;
  Unit<Element, kHeadSize, false, false, true, false> softcap;
  Unit<Element, kHeadSize, false, false, true, true> packed_softcap;
  Unit<Element, kHeadSize, true, false, false, true> split;
  Unit<Element, kHeadSize, true, false, true, true> split_softcap;
  Unit<Element, kHeadSize, false, true, true, true> paged_softcap;
  Unit<Element, kHeadSize, true, true, false, true> paged_split;
  Unit<Element, kHeadSize, true, true, true, true> paged_split_softcap;
};

// The kernels that combine the results of split keys, indexed by [bfloat16][heads above 64].
struct CombineKernels {
  CombineLaunch launches[2][2];
};

void RegisterCombine(const CombineKernels& kernels);

}  // namespace vllm::flash3
