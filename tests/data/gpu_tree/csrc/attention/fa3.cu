// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

__global__ void fa3_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void fa3(float* x) { fa3_kernel<<<1, 32>>>(x); }
