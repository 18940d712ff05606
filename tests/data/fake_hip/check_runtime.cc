// SPDX-License-Identifier: Apache-2.0
// csrc/allocator/hip_runtime.h against HIP's own headers: values, the place of every member, and
// the shape of every function.
#include <hip/hip_runtime_api.h>

#include "allocator/hip_runtime.h"
#include "same_interface.h"

namespace mine = vllm::allocator::hip;

SAME(mine::kSuccess, hipSuccess);
SAME(mine::kOutOfMemory, hipErrorOutOfMemory);
SAME(mine::kDeinitialized, hipErrorDeinitialized);
SAME(mine::kVirtualMemorySupported, hipDeviceAttributeVirtualMemoryManagementSupported);
SAME(mine::kAllocationPinned, hipMemAllocationTypePinned);
SAME(mine::kLocationDevice, hipMemLocationTypeDevice);
SAME(mine::kAccessReadWrite, hipMemAccessFlagsProtReadWrite);
SAME(mine::kGranularityMinimum, hipMemAllocationGranularityMinimum);
SAME(mine::kHostToDevice, hipMemcpyHostToDevice);
SAME(mine::kDeviceToHost, hipMemcpyDeviceToHost);
SAME(0, hipMemHandleTypeNone);

SAME(sizeof(mine::Location), sizeof(hipMemLocation));
PLACE(Location, type, hipMemLocation, type);
PLACE(Location, id, hipMemLocation, id);
SAME(sizeof(mine::AllocationProperties), sizeof(hipMemAllocationProp));
PLACE(AllocationProperties, type, hipMemAllocationProp, type);
PLACE(AllocationProperties, handle_types, hipMemAllocationProp, requestedHandleType);
PLACE(AllocationProperties, location, hipMemAllocationProp, location);
PLACE(AllocationProperties, win32_meta_data, hipMemAllocationProp, win32HandleMetaData);
PLACE(AllocationProperties, compression_type, hipMemAllocationProp, allocFlags.compressionType);
PLACE(AllocationProperties, gpu_direct_rdma_capable, hipMemAllocationProp,
      allocFlags.gpuDirectRDMACapable);
PLACE(AllocationProperties, usage, hipMemAllocationProp, allocFlags.usage);
SAME(sizeof(mine::AccessDescription), sizeof(hipMemAccessDesc));
PLACE(AccessDescription, location, hipMemAccessDesc, location);
PLACE(AccessDescription, flags, hipMemAccessDesc, flags);

#define VLLM_CHECK(member, name, result, parameters) \
  static_assert(Alike<decltype(mine::Runtime::member), decltype(&name)>::value, #name);
VLLM_HIP_RUNTIME_FUNCTIONS(VLLM_CHECK)
