// SPDX-License-Identifier: Apache-2.0
#define VLLM_JOIN_(a, b) a##b
#define VLLM_JOIN(a, b) VLLM_JOIN_(a, b)

extern "C" __attribute__((visibility("default"))) void* VLLM_JOIN(PyInit_, VLLM_MODULE_NAME)() {
  return nullptr;
}
