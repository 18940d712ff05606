// SPDX-License-Identifier: Apache-2.0
// FlashAttention 2's kernels that this library holds. Each unit enters itself through the record of
// the build's table that compiles it, so what is linked is what is found.
#pragma once

#include <cuda_runtime_api.h>

// FlashAttention's header takes the types of the CUDA runtime for granted.
#include <flash.h>

namespace cutlass {
struct bfloat16_t;
struct half_t;
}  // namespace cutlass

namespace vllm::flash2 {

using Params = FLASH_NAMESPACE::Flash_fwd_params;
using Launch = void (*)(Params&, cudaStream_t);

// Head sizes that FlashAttention has kernels for; others run in the next larger one.
inline constexpr int kHeadSizes[] = {32, 64, 96, 128, 192, 256};
inline constexpr int kHeadSizeCount = sizeof(kHeadSizes) / sizeof(kHeadSizes[0]);

template <typename Element>
inline constexpr bool kIsBFloat16 = false;
template <>
inline constexpr bool kIsBFloat16<cutlass::bfloat16_t> = true;

// What a unit can do beside attention; the table leaves some of it out of the smaller sets, as each
// doubles what is compiled.
struct Features {
  bool alibi;
  bool softcap;
  bool uneven;  // heads of other sizes than the unit's own
};

// FlashAttention's macros are defined on the sources of a record: on a unit, and on the file here
// that enters it.
namespace {
constexpr Features kFeatures = {
#ifdef FLASHATTENTION_DISABLE_ALIBI
    false,
#else
    true,
#endif
#ifdef FLASHATTENTION_DISABLE_SOFTCAP
    false,
#else
    true,
#endif
#ifdef FLASHATTENTION_DISABLE_UNEVEN_K
    false,
#else
    true,
#endif
};
}  // namespace

//   parts     over pages or parts of the keys, and appends; otherwise over keys that lie in one
//   piece
void Register(int head_size, bool parts, bool bfloat16, bool causal, Features features,
              Launch launch);

// One unit of FlashAttention's each.
template <typename Element, int kHeadSize, bool kCausal>
struct WholeUnit {
  WholeUnit() {
    Register(kHeadSize, false, kIsBFloat16<Element>, kCausal, kFeatures,
             &FLASH_NAMESPACE::run_mha_fwd_<Element, kHeadSize, kCausal>);
  }
};
template <typename Element, int kHeadSize, bool kCausal>
struct PartsUnit {
  PartsUnit() {
    Register(kHeadSize, true, kIsBFloat16<Element>, kCausal, kFeatures,
             &FLASH_NAMESPACE::run_mha_fwd_splitkv_dispatch<Element, kHeadSize, kCausal>);
  }
};

// All units of a head size but WholeUnit<cutlass::bfloat16_t, kHeadSize, false>.
template <int kHeadSize>
struct Others {
  WholeUnit<cutlass::bfloat16_t, kHeadSize, true> causal;
  WholeUnit<cutlass::half_t, kHeadSize, false> float16;
  WholeUnit<cutlass::half_t, kHeadSize, true> float16_causal;
  PartsUnit<cutlass::bfloat16_t, kHeadSize, false> parts;
  PartsUnit<cutlass::bfloat16_t, kHeadSize, true> parts_causal;
  PartsUnit<cutlass::half_t, kHeadSize, false> parts_float16;
  PartsUnit<cutlass::half_t, kHeadSize, true> parts_float16_causal;
};

}  // namespace vllm::flash2
