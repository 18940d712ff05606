// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

#ifndef VLLM_GEMM_SM90
#error "a kernel is compiled with its macro"
#endif
__global__ void gemm_sm90_kernel(float* x) { x[threadIdx.x] *= 2.0f; }
void gemm_sm90(float* x) { gemm_sm90_kernel<<<1, 32>>>(x); }
