// SPDX-License-Identifier: Apache-2.0
#include "gemm/scaled_mm_sm90.h"

namespace {

using vllm::DType;
using vllm::QType;
using vllm::gpu::kArchitectures;

[[maybe_unused]] const vllm::ScaledMmRegistration bfloat16(
    {QType::kInt8, DType::kBFloat16, kArchitectures, true,
     &vllm::sm90::RunInt8<cutlass::bfloat16_t>});
[[maybe_unused]] const vllm::ScaledMmRegistration float16({QType::kInt8, DType::kFloat16,
                                                           kArchitectures, true,
                                                           &vllm::sm90::RunInt8<cutlass::half_t>});

}  // namespace
