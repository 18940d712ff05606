// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace vllm {

// log2(e): e^x is 2^(kLog2E * x).
inline constexpr float kLog2E = 1.44269504f;

}  // namespace vllm
