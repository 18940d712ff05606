// SPDX-License-Identifier: Apache-2.0
#ifndef VLLM_NORM_GPU
#error "a kernel's macro is defined on every source of its own"
#endif
#if defined(VLLM_GEMM_SM90) || defined(VLLM_GEMM_BLACKWELL)
#error "a kernel's macro is defined on sources of its own alone"
#endif
int norm_binding() { return 1; }
