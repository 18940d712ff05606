// SPDX-License-Identifier: Apache-2.0
// CUDA's virtual memory management. A block is one chunk, which keeps no handle.
// https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html
#include "allocator/cuda_driver.h"
#include "allocator/memory.h"
#include "allocator/mutex.h"

namespace vllm::allocator {
namespace {

using cuda::Driver;
using cuda::kSuccess;
using cuda::Result;

constexpr int kMaxDevices = 128;

// Properties of a device that are queried once.
struct DeviceFacts {
  cuda::Context context = nullptr;  // the primary context, which the CUDA runtime and torch also
                                    // use; held until the process ends
  size_t granularity = 0;           // bytes
  cuda::AllocationProperties properties;
};

bool AskDevice(const Driver& driver, int ordinal, DeviceFacts* facts, Error* error) {
  cuda::Device device = 0;
  int has_virtual_memory = 0;
  int has_rdma = 0;
  Result result = driver.device_get(&device, ordinal);
  if (result != kSuccess) return driver.Fail(result, "cuDeviceGet", error);
  result = driver.device_attribute(&has_virtual_memory, cuda::kVirtualMemorySupported, device);
  if (result != kSuccess) return driver.Fail(result, "cuDeviceGetAttribute", error);
  if (has_virtual_memory == 0) {
    return error->Set(Error::Kind::kFailed,
                      "device %d has no virtual memory management, which this allocator requires",
                      ordinal);
  }
  // A driver that does not know this attribute has no such memory.
  if (driver.device_attribute(&has_rdma, cuda::kRdmaWithVirtualMemory, device) != kSuccess)
    has_rdma = 0;
  facts->properties.location.id = device;
  // Without this flag, a network card cannot access the memory, as it can any ordinary device
  // memory.
  facts->properties.gpu_direct_rdma_capable = has_rdma != 0 ? 1 : 0;
  result = driver.granularity(&facts->granularity, &facts->properties, cuda::kGranularityMinimum);
  if (result != kSuccess) return driver.Fail(result, "cuMemGetAllocationGranularity", error);
  // The context comes last, because it is the only result that would have to be released on
  // failure.
  result = driver.primary_context_retain(&facts->context, device);
  if (result != kSuccess) return driver.Fail(result, "cuDevicePrimaryCtxRetain", error);
  return true;
}

const DeviceFacts* GetFacts(const Driver& driver, int ordinal, Error* error) {
  static Mutex mutex;
  static DeviceFacts all[kMaxDevices];
  if (ordinal < 0 || ordinal >= kMaxDevices) {
    error->Set(Error::Kind::kFailed, "there is no device %d", ordinal);
    return nullptr;
  }
  const Lock lock(&mutex);
  DeviceFacts& facts = all[ordinal];
  if (facts.context == nullptr) {
    DeviceFacts found;
    if (!AskDevice(driver, ordinal, &found, error)) return nullptr;
    facts = found;
  }
  return &facts;
}

// Makes a device's primary context current as long as the object lives, and gives access to the
// driver.
class ContextGuard {
 public:
  ContextGuard(int device, Error* error) : driver_(cuda::LoadDriver(error)) {
    if (driver_ == nullptr) return;
    facts_ = GetFacts(*driver_, device, error);
    if (facts_ == nullptr) return;
    Result result = driver_->context_get_current(&before_);
    if (result != kSuccess) {
      driver_->Fail(result, "cuCtxGetCurrent", error);
      return;
    }
    if (before_ != facts_->context) {
      result = driver_->context_set_current(facts_->context);
      if (result != kSuccess) {
        driver_->Fail(result, "cuCtxSetCurrent", error);
        return;
      }
    }
    good_ = true;
  }
  ~ContextGuard() {
    if (good_ && before_ != facts_->context) driver_->context_set_current(before_);
  }
  ContextGuard(const ContextGuard&) = delete;
  ContextGuard& operator=(const ContextGuard&) = delete;

  explicit operator bool() const { return good_; }
  const Driver* operator->() const { return driver_; }
  const DeviceFacts& facts() const { return *facts_; }

 private:
  const Driver* driver_ = nullptr;
  const DeviceFacts* facts_ = nullptr;
  cuda::Context before_ = nullptr;
  bool good_ = false;
};

// Unmaps the block, if it is mapped, after the device has last used it. cuMemUnmap itself
// guarantees to wait only in most cases.
bool UnmapIn(const ContextGuard& on, Block* block, bool although_the_device_fails, Error* error) {
  Result result = on->context_synchronize();
  const bool waited = result == kSuccess;
  if (!waited) {
    on->Fail(result, "cuCtxSynchronize", error);
    if (!although_the_device_fails) return false;
  }
  result = on->unmap(block->address, block->size);
  if (result != kSuccess) return on->Fail(result, "cuMemUnmap", error);
  block->chunks->mapped = false;
  block->mapped = false;
  return waited;
}

}  // namespace

const bool kHasChunks = false;

bool ReadSettings(Error*) { return true; }

bool Reserve(int device, int64_t size, Block* block, Error* error) {
  const ContextGuard on(device, error);
  if (!on) return false;
  // `size` is signed and a granularity is megabytes, so the sum does not overflow.
  const size_t granularity = on.facts().granularity;
  const size_t whole = (static_cast<size_t>(size) + granularity - 1) / granularity * granularity;
  cuda::Address address = 0;
  const Result result = on->address_reserve(&address, whole, granularity, 0, 0);
  if (result != kSuccess) return on->Fail(result, "cuMemAddressReserve", error);
  Block made{device, whole, whole, address, nullptr, false};
  if (!MakeChunks(&made, error)) {
    on->address_free(address, whole);
    return false;
  }
  *block = made;
  return true;
}

bool Map(Block* block, Error* error) {
  const ContextGuard on(block->device, error);
  if (!on) return false;
  cuda::MemoryHandle handle = 0;
  Result result = on->create(&handle, block->size, &on.facts().properties, 0);
  if (result != kSuccess) return on->Fail(result, "cuMemCreate", error);
  result = on->map(block->address, block->size, 0, handle, 0);
  if (result != kSuccess) {
    on->release(handle);
    return on->Fail(result, "cuMemMap", error);
  }
  // After this call, only the mapping keeps the memory alive. Releasing the memory is then a single
  // step, which cannot be left half done.
  result = on->release(handle);
  if (result != kSuccess) {
    on->unmap(block->address, block->size);
    on->release(handle);
    return on->Fail(result, "cuMemRelease", error);
  }
  cuda::AccessDescription access;
  access.location = on.facts().properties.location;
  result = on->set_access(block->address, block->size, &access, 1);
  if (result != kSuccess) {
    on->unmap(block->address, block->size);
    return on->Fail(result, "cuMemSetAccess", error);
  }
  block->chunks->handle = handle;
  block->chunks->mapped = true;
  block->mapped = true;
  return true;
}

bool Unmap(Block* block, Error* error) {
  const ContextGuard on(block->device, error);
  return on && UnmapIn(on, block, false, error);
}

bool Free(Block* block, Error* error) {
  const ContextGuard on(block->device, error);
  const bool unmapped = on && (!block->mapped || UnmapIn(on, block, true, error));
  DropChunks(block);
  if (!on) return false;
  const Result result = on->address_free(block->address, block->size);
  if (result != kSuccess && unmapped) return on->Fail(result, "cuMemAddressFree", error);
  return unmapped;
}

bool CopyToHost(const Block& block, void* host, Error* error) {
  const ContextGuard on(block.device, error);
  if (!on) return false;
  Result result = on->context_synchronize();
  if (result != kSuccess) return on->Fail(result, "cuCtxSynchronize", error);
  result = on->copy_to_host(host, block.address, block.size);
  return result == kSuccess || on->Fail(result, "cuMemcpyDtoH", error);
}

bool CopyToDevice(const Block& block, const void* host, Error* error) {
  const ContextGuard on(block.device, error);
  if (!on) return false;
  const Result result = on->copy_to_device(block.address, host, block.size);
  return result == kSuccess || on->Fail(result, "cuMemcpyHtoD", error);
}

}  // namespace vllm::allocator
