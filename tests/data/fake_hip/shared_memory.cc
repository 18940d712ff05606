// SPDX-License-Identifier: Apache-2.0
// Allocates shared memory with a HIP runtime that prints its calls, and frees it. With an argument,
// the runtime has no memory.
#include "core/gpu/shared_memory.h"

#include <cstdio>
#include <cstring>
#include <exception>

#include <hip/hip_runtime.h>

namespace {
char memory[4096];
bool full = false;
}  // namespace

hipError_t hipGetLastError() { return hipSuccess; }
const char* hipGetErrorString(hipError_t) { return "out of memory"; }
hipError_t hipMalloc(void** at, size_t bytes) {
  std::printf("hipMalloc %zu\n", bytes);
  *at = memory;
  return hipSuccess;
}
hipError_t hipExtMallocWithFlags(void** at, size_t bytes, unsigned flags) {
  std::printf("hipExtMallocWithFlags %zu %u\n", bytes, flags);
  *at = memory;
  return full ? hipErrorOutOfMemory : hipSuccess;
}
hipError_t hipFree(void*) {
  std::puts("hipFree");
  return hipSuccess;
}
hipError_t hipMemset(void* at, int value, size_t bytes) {
  std::printf("hipMemset %d %zu\n", value, bytes);
  std::memset(at, value, bytes);
  return hipSuccess;
}
hipError_t hipMemcpy(void*, const void*, size_t, hipMemcpyKind) { return hipSuccess; }
hipError_t hipDeviceSynchronize() {
  std::puts("hipDeviceSynchronize");
  return hipSuccess;
}
hipError_t hipMemGetAddressRange(void**, size_t*, void*) { return hipSuccess; }
hipError_t hipIpcGetMemHandle(hipIpcMemHandle_t*, void*) {
  std::puts("hipIpcGetMemHandle");
  return hipSuccess;
}
hipError_t hipIpcOpenMemHandle(void**, hipIpcMemHandle_t, unsigned) { return hipSuccess; }
hipError_t hipStreamIsCapturing(hipStream_t, hipStreamCaptureStatus*) { return hipSuccess; }
namespace vllm::gpu {
void* GetCurrentStream() { return nullptr; }
}  // namespace vllm::gpu

int main(int count, char**) {
  full = count > 1;
  try {
    vllm::gpu::FreeShared(vllm::gpu::AllocateShared(1000).first);
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
  }
}
