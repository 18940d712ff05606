// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace vllm {

// The element types that kernels accept. Arithmetic is in float32 for all of them; results are
// rounded to nearest, ties to even.
enum class DType { kFloat32, kBFloat16, kFloat16 };

// Returns the number of bytes of an element.
inline constexpr int64_t GetSize(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// The eight-bit element types to which kernels quantise.
enum class QType { kE4M3, kE5M2, kInt8 };

}  // namespace vllm
