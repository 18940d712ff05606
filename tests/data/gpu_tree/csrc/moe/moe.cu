// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

__global__ void moe_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void moe(float* x) { moe_kernel<<<1, 32>>>(x); }
