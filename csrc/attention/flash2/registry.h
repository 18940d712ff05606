// SPDX-License-Identifier: Apache-2.0
// FlashAttention 2's kernels that this library holds. Each head size is a kernel of its own in the build's table and enters itself here, so
// what is linked is what is found.
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

// Launches of one head size by [bfloat16][causal]: over keys that lie in one piece; and over pages or parts of the keys, which also
// appends.
struct Kernels {
  Launch whole[2][2];
  Launch parts[2][2];
};

void Register(int head_size, const Kernels& kernels);

template <int kHeadSize>
struct Registration {
  Registration() {
    using cutlass::bfloat16_t;
    using cutlass::half_t;
    namespace upstream = FLASH_NAMESPACE;
    Register(kHeadSize, {{{&upstream::run_mha_fwd_<half_t, kHeadSize, false>, &upstream::run_mha_fwd_<half_t, kHeadSize, true>},
                          {&upstream::run_mha_fwd_<bfloat16_t, kHeadSize, false>, &upstream::run_mha_fwd_<bfloat16_t, kHeadSize, true>}},
                         {{&upstream::run_mha_fwd_splitkv_dispatch<half_t, kHeadSize, false>,
                           &upstream::run_mha_fwd_splitkv_dispatch<half_t, kHeadSize, true>},
                          {&upstream::run_mha_fwd_splitkv_dispatch<bfloat16_t, kHeadSize, false>,
                           &upstream::run_mha_fwd_splitkv_dispatch<bfloat16_t, kHeadSize, true>}}});
  }
};

}  // namespace vllm::flash2
