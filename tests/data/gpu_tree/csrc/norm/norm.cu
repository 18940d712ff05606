// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

#ifndef VLLM_NORM_GPU
#error "a kernel is compiled with its macro"
#endif
__global__ void norm_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void norm(float* x) { norm_kernel<<<1, 32>>>(x); }
