// SPDX-License-Identifier: Apache-2.0
// csrc/allocator/hip_runtime.h against HIP's own headers: values, the place of every member, and
// the shape of every function.
#include <cstddef>
#include <type_traits>

#include <hip/hip_runtime_api.h>

#include "allocator/hip_runtime.h"

namespace mine = vllm::allocator::hip;

#define SAME(ours, theirs) \
  static_assert(static_cast<long long>(ours) == static_cast<long long>(theirs), #theirs)
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

#define PLACE(ours, our_member, theirs, their_member)                     \
  SAME(offsetof(mine::ours, our_member), offsetof(theirs, their_member)); \
  SAME(sizeof(mine::ours::our_member), sizeof(theirs{}.their_member))
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

// Two types are passed alike: pointers as pointers, everything else as integers of one size.
template <typename A, typename B>
constexpr bool kAlike = std::is_pointer_v<A> == std::is_pointer_v<B> && sizeof(A) == sizeof(B);

template <typename Ours, typename Theirs>
struct Alike : std::false_type {};
template <typename R, typename... Ours, typename S, typename... Theirs>
struct Alike<R (*)(Ours...), S (*)(Theirs...)> {
  static constexpr bool Compare() {
    if constexpr (sizeof...(Ours) == sizeof...(Theirs))
      return kAlike<R, S> && (... && kAlike<Ours, Theirs>);
    return false;
  }
  static constexpr bool value = Compare();
};

#define VLLM_CHECK(member, name, result, parameters) \
  static_assert(Alike<decltype(mine::Runtime::member), decltype(&name)>::value, #name);
VLLM_HIP_RUNTIME_FUNCTIONS(VLLM_CHECK)
