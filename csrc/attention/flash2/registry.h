// SPDX-License-Identifier: Apache-2.0
// Registers the FlashAttention 2 kernels that this library contains. Each record of kernels.toml
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

namespace vllm::flash2 {

using Params = FLASH_NAMESPACE::Flash_fwd_params;
using Launch = void (*)(Params&, cudaStream_t);

// The head sizes that FlashAttention has kernels for. Other sizes use the next larger one.
inline constexpr int kHeadSizes[] = {32, 64, 96, 128, 192, 256};
inline constexpr int kHeadSizeCount = sizeof(kHeadSizes) / sizeof(kHeadSizes[0]);

template <typename Element>
inline constexpr bool kIsBFloat16 = false;
template <>
inline constexpr bool kIsBFloat16<cutlass::bfloat16_t> = true;

// Optional features of a unit. The smaller sets omit some of them, because each feature doubles the
// amount of code to compile.
struct Features {
  bool alibi;
  bool softcap;
  bool uneven;  // heads smaller than the unit's head size
};

// kernels.toml defines FlashAttention's macros for the sources of a record: for its units and for
// the file here that registers them.
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

// Registers a kernel. With `parts` it is for pages or split keys and can append new keys; otherwise
// it is for keys in one piece.
void Register(int head_size, bool parts, bool bfloat16, bool causal, Features features,
              Launch launch);

// The constructors of the next two structs each register one of FlashAttention's units.
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

// All units of a head size except WholeUnit<cutlass::bfloat16_t, kHeadSize, false>.
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
