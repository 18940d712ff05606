// SPDX-License-Identifier: Apache-2.0
// The part of HIP's runtime that the allocator uses, as functions of the runtime that the process
// has loaded: the library neither links nor needs libamdhip64, and can be imported where there is
// none. Names and values are AMD's;
// tests/recipe/test_rocm_allocator.py compares each of them with HIP's headers.
#pragma once

#include <cstddef>

#include "allocator/error.h"

namespace vllm::allocator::hip {

using Result = int;          // hipError_t
using Address = void*;       // hipDeviceptr_t
using MemoryHandle = void*;  // hipMemGenericAllocationHandle_t

constexpr Result kSuccess = 0;        // hipSuccess
constexpr Result kOutOfMemory = 2;    // hipErrorOutOfMemory
constexpr Result kDeinitialized = 4;  // hipErrorDeinitialized

constexpr int kVirtualMemorySupported = 89;  // hipDeviceAttributeVirtualMemoryManagementSupported
constexpr int kAllocationPinned = 1;         // hipMemAllocationTypePinned
constexpr int kLocationDevice = 1;           // hipMemLocationTypeDevice
constexpr int kAccessReadWrite = 3;          // hipMemAccessFlagsProtReadWrite
constexpr int kGranularityMinimum = 0;       // hipMemAllocationGranularityMinimum
constexpr int kHostToDevice = 1;             // hipMemcpyHostToDevice
constexpr int kDeviceToHost = 2;             // hipMemcpyDeviceToHost

// hipMemLocation
struct Location {
  int type = kLocationDevice;
  int id = 0;
};

// hipMemAllocationProp
struct AllocationProperties {
  int type = kAllocationPinned;
  int handle_types = 0;
  Location location;
  void* win32_meta_data = nullptr;
  unsigned char compression_type = 0;
  unsigned char gpu_direct_rdma_capable = 0;
  unsigned short usage = 0;
};

// hipMemAccessDesc
struct AccessDescription {
  Location location;
  int flags = kAccessReadWrite;
};

// X(member, name, result, parameters) describes a function of the runtime.
#define VLLM_HIP_RUNTIME_FUNCTIONS(X)                                                    \
  X(get_device, hipGetDevice, Result, (int*))                                            \
  X(set_device, hipSetDevice, Result, (int))                                             \
  X(device_attribute, hipDeviceGetAttribute, Result, (int*, int, int))                   \
  X(synchronize, hipDeviceSynchronize, Result, ())                                       \
  X(last_error, hipGetLastError, Result, ())                                             \
  X(error_name, hipGetErrorName, const char*, (Result))                                  \
  X(error_string, hipGetErrorString, const char*, (Result))                              \
  X(copy, hipMemcpy, Result, (void*, const void*, size_t, int))                          \
  X(granularity, hipMemGetAllocationGranularity, Result,                                 \
    (size_t*, const AllocationProperties*, int))                                         \
  X(address_reserve, hipMemAddressReserve, Result,                                       \
    (Address*, size_t, size_t, Address, unsigned long long))                             \
  X(address_free, hipMemAddressFree, Result, (Address, size_t))                          \
  X(create, hipMemCreate, Result,                                                        \
    (MemoryHandle*, size_t, const AllocationProperties*, unsigned long long))            \
  X(release, hipMemRelease, Result, (MemoryHandle))                                      \
  X(map, hipMemMap, Result, (Address, size_t, size_t, MemoryHandle, unsigned long long)) \
  X(unmap, hipMemUnmap, Result, (Address, size_t))                                       \
  X(set_access, hipMemSetAccess, Result, (Address, size_t, const AccessDescription*, size_t))

// The runtime's functions, named after what they do.
struct Runtime {
#define VLLM_HIP_RUNTIME_MEMBER(member, name, result, parameters) \
  result(*member) parameters = nullptr;
  VLLM_HIP_RUNTIME_FUNCTIONS(VLLM_HIP_RUNTIME_MEMBER)
#undef VLLM_HIP_RUNTIME_MEMBER

  // Returns whether `result` is kSuccess. If not, stores its description in `error`, and makes the
  // runtime forget it: torch would otherwise take it for the failure of its next kernel.
  bool Check(Result result, const char* call, Error* error) const;
};

// Returns the functions of the runtime that the process has loaded. Returns null and sets `error`
// if it has loaded none, or one without virtual memory management. Later calls only take a lock.
const Runtime* FindRuntime(Error* error);

}  // namespace vllm::allocator::hip
