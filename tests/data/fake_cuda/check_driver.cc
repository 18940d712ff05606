// SPDX-License-Identifier: Apache-2.0
// csrc/allocator/cuda_driver.h against the toolkit's own headers: values, the place of every
// member, and the shape of every function.
#include <cuda.h>
#include <cudaTypedefs.h>

#include "allocator/cuda_driver.h"
#include "same_interface.h"

namespace mine = vllm::allocator::cuda;

SAME(mine::kSuccess, CUDA_SUCCESS);
SAME(mine::kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
SAME(mine::kDeinitialized, CUDA_ERROR_DEINITIALIZED);
SAME(mine::kVirtualMemorySupported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
SAME(mine::kRdmaWithVirtualMemory, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED);
SAME(mine::kAllocationPinned, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME(mine::kLocationDevice, CU_MEM_LOCATION_TYPE_DEVICE);
SAME(mine::kAccessReadWrite, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
SAME(mine::kGranularityMinimum, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
SAME(0, CU_MEM_HANDLE_TYPE_NONE);
SAME(0, CU_GET_PROC_ADDRESS_DEFAULT);

SAME(sizeof(mine::Location), sizeof(CUmemLocation));
PLACE(Location, type, CUmemLocation, type);
PLACE(Location, id, CUmemLocation, id);
SAME(sizeof(mine::AllocationProperties), sizeof(CUmemAllocationProp));
PLACE(AllocationProperties, type, CUmemAllocationProp, type);
PLACE(AllocationProperties, handle_types, CUmemAllocationProp, requestedHandleTypes);
PLACE(AllocationProperties, location, CUmemAllocationProp, location);
PLACE(AllocationProperties, win32_meta_data, CUmemAllocationProp, win32HandleMetaData);
PLACE(AllocationProperties, compression_type, CUmemAllocationProp, allocFlags.compressionType);
PLACE(AllocationProperties, gpu_direct_rdma_capable, CUmemAllocationProp,
      allocFlags.gpuDirectRDMACapable);
PLACE(AllocationProperties, usage, CUmemAllocationProp, allocFlags.usage);
PLACE(AllocationProperties, reserved, CUmemAllocationProp, allocFlags.reserved);
SAME(sizeof(mine::AccessDescription), sizeof(CUmemAccessDesc));
PLACE(AccessDescription, location, CUmemAccessDesc, location);
PLACE(AccessDescription, flags, CUmemAccessDesc, flags);

// The typedefs carry the release that brought the interface, which is the number we ask for; a
// wrong one has none.
#define VLLM_CHECK(member, name, symbol, version, parameters) VLLM_CHECK_(member, symbol, version)
#define VLLM_CHECK_(member, symbol, version) \
  static_assert(Alike<decltype(mine::Driver::member), decltype(&symbol)>::value, #symbol);
VLLM_CUDA_DRIVER_FUNCTIONS(VLLM_CHECK)

#undef cuMemcpyDtoH
#undef cuMemcpyHtoD
#define VLLM_VERSION(member, name, symbol, version, parameters)                        \
  static_assert(Alike<decltype(mine::Driver::member), PFN_##name##_v##version>::value, \
                #name " of " #version);
VLLM_CUDA_DRIVER_FUNCTIONS(VLLM_VERSION)

// The two that find the others.
static_assert(
    Alike<int (*)(const char*, void**, int, uint64_t), PFN_cuGetProcAddress_v11030>::value);
#if CUDA_VERSION >= 12000
static_assert(
    Alike<int (*)(const char*, void**, int, uint64_t, int*), PFN_cuGetProcAddress_v12000>::value);
#endif
