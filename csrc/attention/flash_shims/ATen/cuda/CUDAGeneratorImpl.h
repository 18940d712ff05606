// SPDX-License-Identifier: Apache-2.0
// FlashAttention's parameters contain the state of torch's random number generator, for dropout.
// This library has no dropout, so the state is empty, but the kernels still name the type.
#pragma once

#include <cstdint>

namespace at {

struct PhiloxCudaState {};

}  // namespace at
