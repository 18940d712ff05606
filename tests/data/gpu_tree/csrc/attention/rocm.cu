// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

__global__ void attention_rocm_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void attention_rocm(float* x) { attention_rocm_kernel<<<1, 32>>>(x); }
