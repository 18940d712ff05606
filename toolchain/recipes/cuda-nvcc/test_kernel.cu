// SPDX-License-Identifier: Apache-2.0
// A kernel with code that exists only for 9.0a and plain code for other architectures, and a
// function that launches it.
#include <cuda_bf16.h>

template <typename T>
__global__ void scale(T* values, T factor, int count) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  // Only this chip's instruction set `a` has warpgroup matrix instructions. ptxas refuses them for
  // the plain one.
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] = values[i] * factor;
}

extern "C" int scale_bfloat16(void* values, float factor, int count) {
  scale<__nv_bfloat16><<<(count + 255) / 256, 256>>>(static_cast<__nv_bfloat16*>(values),
                                                     __float2bfloat16(factor), count);
  return cudaGetLastError();
}
