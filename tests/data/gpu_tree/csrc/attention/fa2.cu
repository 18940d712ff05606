// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

__global__ void fa2_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void fa2(float* x) { fa2_kernel<<<1, 32>>>(x); }
