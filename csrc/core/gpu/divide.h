// SPDX-License-Identifier: Apache-2.0
// Division by a number that is fixed for a launch.
#pragma once

#include <cstdint>

#include "core/device.h"

namespace vllm::gpu {

// n / divisor for 0 <= n. If both are below 2^31, it is computed as a product, because GPUs have no
// instruction for integer division.
//
// Source: Granlund and Montgomery, Division by Invariant Integers using Multiplication, PLDI 1994,
// figure 4.1.
class DivideBy {
 public:
  explicit DivideBy(int64_t divisor) : divisor_(divisor) {
    if (divisor >= kLimit) return;
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    factor_ = static_cast<uint32_t>(
        ((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - static_cast<uint64_t>(divisor))) /
            static_cast<uint64_t>(divisor) +
        1);
  }

  VLLM_HOST_DEVICE int64_t operator()(int64_t n) const {
    if (n >= kLimit || divisor_ >= kLimit) return n / divisor_;
    const uint32_t m = static_cast<uint32_t>(n);
    return (static_cast<uint32_t>(uint64_t{m} * factor_ >> 32) + m) >> shift_;
  }

 private:
  static constexpr int64_t kLimit = int64_t{1} << 31;

  int64_t divisor_;
  uint32_t factor_ = 0;
  int shift_ = 0;
};

}  // namespace vllm::gpu
