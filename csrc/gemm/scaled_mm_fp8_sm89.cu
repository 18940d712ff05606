// SPDX-License-Identifier: Apache-2.0
#include "gemm/scaled_mm_sm80.h"

namespace {

using vllm::DType;
using vllm::QType;

template <typename Out>
void Run(const vllm::ScaledMm& product) {
  vllm::sm80::Run<cutlass::float_e4m3_t, float, cutlass::arch::Sm89,
                  cutlass::arch::OpMultiplyAddFastAccum, Out>(product);
}

[[maybe_unused]] const vllm::ScaledMmRegistration bfloat16({QType::kE4M3, DType::kBFloat16,
                                                            vllm::gpu::kArchitectures, false,
                                                            &Run<cutlass::bfloat16_t>});
[[maybe_unused]] const vllm::ScaledMmRegistration float16({QType::kE4M3, DType::kFloat16,
                                                           vllm::gpu::kArchitectures, false,
                                                           &Run<cutlass::half_t>});

}  // namespace
