// SPDX-License-Identifier: Apache-2.0
// The part of HIP's header that csrc/core/gpu/shared_memory.cu needs, for a compiler that knows no
// GPU. shared_memory.cc defines the functions.
#pragma once

#include <cstddef>

#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __builtin_amdgcn_fence(...)
#define __builtin_amdgcn_wave_barrier()

struct FakeIndex {
  unsigned x, y, z;
};
inline FakeIndex threadIdx;
inline unsigned long long __ballot(int) { return 0; }
inline unsigned __lane_id() { return 0; }
inline int __popc(unsigned) { return 0; }

enum hipError_t { hipSuccess = 0, hipErrorOutOfMemory = 2 };
enum hipMemcpyKind { hipMemcpyHostToDevice = 1 };
enum hipStreamCaptureStatus { hipStreamCaptureStatusNone, hipStreamCaptureStatusActive };
using hipStream_t = struct FakeStream*;
struct hipIpcMemHandle_t {
  char reserved[64];
};
constexpr unsigned hipDeviceMallocUncached = 3, hipIpcMemLazyEnablePeerAccess = 1;

hipError_t hipGetLastError();
const char* hipGetErrorString(hipError_t);
hipError_t hipMalloc(void**, size_t);
hipError_t hipExtMallocWithFlags(void**, size_t, unsigned);
hipError_t hipFree(void*);
hipError_t hipMemset(void*, int, size_t);
hipError_t hipMemcpy(void*, const void*, size_t, hipMemcpyKind);
hipError_t hipDeviceSynchronize();
hipError_t hipMemGetAddressRange(void**, size_t*, void*);
hipError_t hipIpcGetMemHandle(hipIpcMemHandle_t*, void*);
hipError_t hipIpcOpenMemHandle(void**, hipIpcMemHandle_t, unsigned);
hipError_t hipStreamIsCapturing(hipStream_t, hipStreamCaptureStatus*);
