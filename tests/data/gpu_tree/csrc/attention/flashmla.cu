// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

__global__ void flashmla_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void flashmla(float* x) { flashmla_kernel<<<1, 32>>>(x); }
