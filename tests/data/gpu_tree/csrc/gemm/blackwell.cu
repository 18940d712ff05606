// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

#ifndef VLLM_GEMM_BLACKWELL
#error "a kernel is compiled with its macro"
#endif
__global__ void gemm_blackwell_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void gemm_blackwell(float* x) { gemm_blackwell_kernel<<<1, 32>>>(x); }
