// SPDX-License-Identifier: Apache-2.0
#include "core/gpu/shared_memory.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "core/gpu/stream.h"
#include "core/gpu/toolkit.h"

namespace vllm::gpu {
namespace {

using Stream = VLLM_GPU_RUNTIME(Stream_t);
using IpcHandle = VLLM_GPU_RUNTIME(IpcMemHandle_t);
static_assert(sizeof(IpcHandle) == kShareHandleBytes);

ShareHandle MakeShareHandle(void* base) {
  IpcHandle handle;
  CheckRuntime(VLLM_GPU_RUNTIME(IpcGetMemHandle)(&handle, base),
               "sharing memory with another process");
  ShareHandle bytes;
  std::memcpy(bytes.data(), &handle, sizeof(handle));
  return bytes;
}

// Returns the beginning of an allocation. Only the driver knows it, but the library must load where
// there is no driver, so the runtime looks the function up.
void* FindAllocationBase(const void* address) {
#if defined(__HIPCC__)
  void* base = nullptr;
  size_t size = 0;
  CheckRuntime(hipMemGetAddressRange(&base, &size, const_cast<void*>(address)),
               "looking for an allocation's beginning");
  return base;
#else
  void* function = nullptr;
#if CUDART_VERSION >= 13000
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &function, 3020, cudaEnableDefault);
#else
  const cudaError_t error =
      cudaGetDriverEntryPoint("cuMemGetAddressRange", &function, cudaEnableDefault);
#endif
  CheckRuntime(error, "looking for the driver's cuMemGetAddressRange");
  if (function == nullptr) throw std::runtime_error("the driver has no cuMemGetAddressRange");
  // CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* size, CUdeviceptr address)
  unsigned long long base = 0;
  size_t size = 0;
  const auto get =
      reinterpret_cast<int (*)(unsigned long long*, size_t*, unsigned long long)>(function);
  const int status = get(&base, &size, reinterpret_cast<unsigned long long>(address));
  if (status != 0)
    throw std::runtime_error("no GPU allocation contains that address (driver error " +
                             std::to_string(status) + ")");
  return reinterpret_cast<void*>(base);
#endif
}

// On AMD GPUs, the caches do not see what other GPUs write to ordinary memory while a kernel runs,
// and no fence or atomic operation changes that. Memory that is not cached has no such problem.
auto Allocate(void** memory, size_t bytes) {
#if defined(__HIPCC__)
  return hipExtMallocWithFlags(memory, bytes, hipDeviceMallocUncached);
#else
  return cudaMalloc(memory, bytes);
#endif
}

}  // namespace

std::pair<void*, ShareHandle> AllocateShared(size_t bytes) {
  void* memory = nullptr;
  CheckRuntime(Allocate(&memory, bytes), "allocating shared memory");
  try {
    CheckRuntime(VLLM_GPU_RUNTIME(Memset)(memory, 0, bytes), "zeroing shared memory");
    CheckRuntime(VLLM_GPU_RUNTIME(DeviceSynchronize)(), "zeroing shared memory");
    return {memory, MakeShareHandle(memory)};
  } catch (...) {
    (void)VLLM_GPU_RUNTIME(Free)(memory);
    throw;
  }
}

void FreeShared(void* memory) {
  CheckRuntime(VLLM_GPU_RUNTIME(Free)(memory), "freeing shared memory");
}

std::pair<ShareHandle, int64_t> ExportShared(const void* address) {
  void* base = FindAllocationBase(address);
  return {MakeShareHandle(base),
          static_cast<const char*>(address) - static_cast<const char*>(base)};
}

void* OpenShared(const ShareHandle& bytes) {
  IpcHandle handle;
  std::memcpy(&handle, bytes.data(), sizeof(handle));
  void* memory = nullptr;
  CheckRuntime(VLLM_GPU_RUNTIME(IpcOpenMemHandle)(&memory, handle,
                                                  VLLM_GPU_RUNTIME(IpcMemLazyEnablePeerAccess)),
               "opening another process's memory");
  return memory;
}

bool IsCapturing() {
  auto status = VLLM_GPU_RUNTIME(StreamCaptureStatusNone);
  CheckRuntime(
      VLLM_GPU_RUNTIME(StreamIsCapturing)(static_cast<Stream>(GetCurrentStream()), &status),
      "asking whether a stream is capturing");
  return status == VLLM_GPU_RUNTIME(StreamCaptureStatusActive);
}

void CopyToDevice(void* to, const void* from, size_t bytes) {
  CheckRuntime(VLLM_GPU_RUNTIME(Memcpy)(to, from, bytes, VLLM_GPU_RUNTIME(MemcpyHostToDevice)),
               "copying to the GPU");
}

}  // namespace vllm::gpu
