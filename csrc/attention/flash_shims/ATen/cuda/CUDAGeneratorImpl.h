// SPDX-License-Identifier: Apache-2.0
// FlashAttention's parameters hold the state of torch's generator of random numbers, for dropout.
// Nothing here drops anything, so the state is empty; the kernels name the type all the same.
#pragma once

#include <cstdint>

namespace at {

struct PhiloxCudaState {};

}  // namespace at
