// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm {

// Element types that kernels take. Arithmetic is in float32 whatever the element type; results are
// rounded to nearest, ties to even.
enum class DType { kFloat32, kBFloat16, kFloat16 };

// Bytes of an element.
inline constexpr int64_t SizeOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// Element types of eight bits that kernels quantise to.
enum class QType { kE4M3, kE5M2, kInt8 };

}  // namespace vllm
