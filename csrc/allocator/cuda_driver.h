// SPDX-License-Identifier: Apache-2.0
// The part of the CUDA driver's interface that the allocator uses. It is declared here so that the
// file compiles without a toolkit and the library neither links nor needs libcuda: it can be
// imported where there is no driver. Names and values are NVIDIA's;
// tests/recipe/test_cuda_toolchain.py compares each of them with cuda.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "allocator/error.h"

namespace vllm::allocator::cuda {

using Result = int;             // CUresult
using Device = int;             // CUdevice
using Context = void*;          // CUcontext
using Address = uint64_t;       // CUdeviceptr
using MemoryHandle = uint64_t;  // CUmemGenericAllocationHandle

constexpr Result kSuccess = 0;        // CUDA_SUCCESS
constexpr Result kOutOfMemory = 2;    // CUDA_ERROR_OUT_OF_MEMORY
constexpr Result kDeinitialized = 4;  // CUDA_ERROR_DEINITIALIZED

constexpr int kVirtualMemorySupported =
    102;  // CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
constexpr int kRdmaWithVirtualMemory =
    110;                              // CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED
constexpr int kAllocationPinned = 1;  // CU_MEM_ALLOCATION_TYPE_PINNED
constexpr int kLocationDevice = 1;    // CU_MEM_LOCATION_TYPE_DEVICE
constexpr int kAccessReadWrite = 3;   // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
constexpr int kGranularityMinimum = 0;  // CU_MEM_ALLOC_GRANULARITY_MINIMUM

// CUmemLocation
struct Location {
  int type = kLocationDevice;
  int id = 0;
};

// CUmemAllocationProp
struct AllocationProperties {
  int type = kAllocationPinned;
  int handle_types = 0;
  Location location;
  void* win32_meta_data = nullptr;
  unsigned char compression_type = 0;
  unsigned char gpu_direct_rdma_capable = 0;
  unsigned short usage = 0;
  unsigned char reserved[4] = {};
};

// CUmemAccessDesc
struct AccessDescription {
  Location location;
  int flags = kAccessReadWrite;
};

// VLLM_CUDA_DRIVER(member, name, symbol, version, parameters) describes an entry point: the name
// that cuGetProcAddress knows, the symbol of libcuda.so.1 with the same interface, and the CUDA
// release that introduced the interface (1000 * major + 10 * minor).
#define VLLM_CUDA_DRIVER_FUNCTIONS(X)                                                            \
  X(init, cuInit, cuInit, 2000, (unsigned))                                                      \
  X(error_name, cuGetErrorName, cuGetErrorName, 6000, (Result, const char**))                    \
  X(error_string, cuGetErrorString, cuGetErrorString, 6000, (Result, const char**))              \
  X(device_get, cuDeviceGet, cuDeviceGet, 2000, (Device*, int))                                  \
  X(device_attribute, cuDeviceGetAttribute, cuDeviceGetAttribute, 2000, (int*, int, Device))     \
  X(primary_context_retain, cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000,            \
    (Context*, Device))                                                                          \
  X(context_get_current, cuCtxGetCurrent, cuCtxGetCurrent, 4000, (Context*))                     \
  X(context_set_current, cuCtxSetCurrent, cuCtxSetCurrent, 4000, (Context))                      \
  X(context_synchronize, cuCtxSynchronize, cuCtxSynchronize, 2000, ())                           \
  X(granularity, cuMemGetAllocationGranularity, cuMemGetAllocationGranularity, 10020,            \
    (size_t*, const AllocationProperties*, int))                                                 \
  X(address_reserve, cuMemAddressReserve, cuMemAddressReserve, 10020,                            \
    (Address*, size_t, size_t, Address, unsigned long long))                                     \
  X(address_free, cuMemAddressFree, cuMemAddressFree, 10020, (Address, size_t))                  \
  X(create, cuMemCreate, cuMemCreate, 10020,                                                     \
    (MemoryHandle*, size_t, const AllocationProperties*, unsigned long long))                    \
  X(release, cuMemRelease, cuMemRelease, 10020, (MemoryHandle))                                  \
  X(map, cuMemMap, cuMemMap, 10020, (Address, size_t, size_t, MemoryHandle, unsigned long long)) \
  X(unmap, cuMemUnmap, cuMemUnmap, 10020, (Address, size_t))                                     \
  X(set_access, cuMemSetAccess, cuMemSetAccess, 10020,                                           \
    (Address, size_t, const AccessDescription*, size_t))                                         \
  X(copy_to_host, cuMemcpyDtoH, cuMemcpyDtoH_v2, 3020, (void*, Address, size_t))                 \
  X(copy_to_device, cuMemcpyHtoD, cuMemcpyHtoD_v2, 3020, (Address, const void*, size_t))

// The driver's functions, named after what they do.
struct Driver {
#define VLLM_CUDA_DRIVER_MEMBER(member, name, symbol, version, parameters) \
  Result(*member) parameters = nullptr;
  VLLM_CUDA_DRIVER_FUNCTIONS(VLLM_CUDA_DRIVER_MEMBER)
#undef VLLM_CUDA_DRIVER_MEMBER

  // Stores a description of `result`, which is not kSuccess, in `error`. Returns false.
  bool Fail(Result result, const char* call, Error* error) const;
};

// Returns the driver, which the first successful call loads and initialises. Returns null and sets
// `error` if it cannot be loaded. Later calls only take a lock.
const Driver* LoadDriver(Error* error);

}  // namespace vllm::allocator::cuda
