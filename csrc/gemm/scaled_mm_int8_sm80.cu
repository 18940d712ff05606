// SPDX-License-Identifier: Apache-2.0
#include "gemm/scaled_mm_sm80.h"

namespace {

using vllm::DType;
using vllm::QType;

template <typename Out>
void Run(const vllm::ScaledMm& product) {
  vllm::sm80::Run<int8_t, int32_t, cutlass::arch::Sm80, cutlass::arch::OpMultiplyAddSaturate, Out>(
      product);
}

[[maybe_unused]] const vllm::ScaledMmRegistration bfloat16({QType::kInt8, DType::kBFloat16,
                                                            vllm::gpu::kArchitectures, false,
                                                            &Run<cutlass::bfloat16_t>});
[[maybe_unused]] const vllm::ScaledMmRegistration float16({QType::kInt8, DType::kFloat16,
                                                           vllm::gpu::kArchitectures, false,
                                                           &Run<cutlass::half_t>});

}  // namespace
