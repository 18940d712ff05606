// SPDX-License-Identifier: Apache-2.0
// HIP's virtual memory management, which its header hip_runtime_api.h describes.
//
// A block has several chunks, because a driver may refuse to create much memory as one piece. Each
// call names the range of one chunk. HIP's runtimes have refused ranges of several chunks in
// hipMemSetAccess (ROCm/rocm-systems, issue 2516), and have kept addresses in use after such a
// range was unmapped with one call, or after a handle was released before its memory was unmapped
// (ROCm/ROCR-Runtime, issues 285 and 257). Handles are therefore held as long as memory is mapped.
// Unmap() also needs them to restore the chunks that it has unmapped before one fails.
#include "allocator/chunk_setting.h"
#include "allocator/hip_runtime.h"
#include "allocator/memory.h"
#include "allocator/mutex.h"

namespace vllm::allocator {
namespace {

using hip::Runtime;

constexpr int kMaxDevices = 128;

// Properties of a device that are queried once.
struct DeviceFacts {
  size_t granularity = 0;  // bytes; 0 before the query
  hip::AllocationProperties properties;
};

// Asks the current device, which has this number.
bool AskDevice(const Runtime& runtime, int device, DeviceFacts* facts, Error* error) {
  int has_virtual_memory = 0;
  if (!runtime.Check(
          runtime.device_attribute(&has_virtual_memory, hip::kVirtualMemorySupported, device),
          "hipDeviceGetAttribute", error))
    return false;
  if (has_virtual_memory == 0) {
    return error->Set(Error::Kind::kFailed,
                      "device %d has no virtual memory management, which this allocator requires",
                      device);
  }
  facts->properties.location.id = device;
  return runtime.Check(
      runtime.granularity(&facts->granularity, &facts->properties, hip::kGranularityMinimum),
      "hipMemGetAllocationGranularity", error);
}

const DeviceFacts* GetFacts(const Runtime& runtime, int device, Error* error) {
  static Mutex mutex;
  static DeviceFacts all[kMaxDevices];
  const Lock lock(&mutex);
  DeviceFacts& facts = all[device];
  if (facts.granularity == 0) {
    DeviceFacts found;
    if (!AskDevice(runtime, device, &found, error)) return nullptr;
    facts = found;
  }
  return &facts;
}

// Makes a device current as long as the object lives, and gives access to the runtime.
class DeviceGuard {
 public:
  DeviceGuard(int device, Error* error) : device_(device) {
    if (device < 0 || device >= kMaxDevices) {
      error->Set(Error::Kind::kFailed, "there is no device %d", device);
      return;
    }
    runtime_ = hip::FindRuntime(error);
    if (runtime_ == nullptr) return;
    if (!Check(runtime_->get_device(&before_), "hipGetDevice", error)) return;
    if (before_ != device && !Check(runtime_->set_device(device), "hipSetDevice", error)) return;
    current_ = true;
    facts_ = GetFacts(*runtime_, device, error);
  }
  ~DeviceGuard() {
    Error ignored;
    if (current_ && before_ != device_)
      Check(runtime_->set_device(before_), "hipSetDevice", &ignored);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

  explicit operator bool() const { return facts_ != nullptr; }
  const Runtime* operator->() const { return runtime_; }
  const DeviceFacts& facts() const { return *facts_; }

  bool Check(hip::Result result, const char* call, Error* error) const {
    return runtime_->Check(result, call, error);
  }

 private:
  int device_;
  const Runtime* runtime_ = nullptr;
  const DeviceFacts* facts_ = nullptr;
  int before_ = 0;
  bool current_ = false;
};

hip::Address ChunkAddress(const Block& block, size_t index) {
  return reinterpret_cast<hip::Address>(block.address + ChunkOffset(block, index));
}

// Brings a chunk into a state; does nothing if it already has it.
bool CreateChunk(const DeviceGuard& on, Block* block, size_t index, Error* error) {
  Chunk& chunk = block->chunks[index];
  if (chunk.held) return true;
  hip::MemoryHandle handle = nullptr;
  if (!on.Check(on->create(&handle, ChunkSize(*block, index), &on.facts().properties, 0),
                "hipMemCreate", error))
    return false;
  chunk.handle = reinterpret_cast<uintptr_t>(handle);
  chunk.held = true;
  return true;
}

bool UnmapChunk(const DeviceGuard& on, Block* block, size_t index, Error* error) {
  Chunk& chunk = block->chunks[index];
  if (!chunk.mapped) return true;
  if (!on.Check(on->unmap(ChunkAddress(*block, index), ChunkSize(*block, index)), "hipMemUnmap",
                error))
    return false;
  chunk.mapped = false;
  return true;
}

bool MapChunk(const DeviceGuard& on, Block* block, size_t index, Error* error) {
  Chunk& chunk = block->chunks[index];
  if (chunk.mapped) return true;
  const hip::Address address = ChunkAddress(*block, index);
  const size_t size = ChunkSize(*block, index);
  if (!on.Check(on->map(address, size, 0, reinterpret_cast<hip::MemoryHandle>(chunk.handle), 0),
                "hipMemMap", error))
    return false;
  chunk.mapped = true;
  hip::AccessDescription access;
  access.location = on.facts().properties.location;
  if (on.Check(on->set_access(address, size, &access, 1), "hipMemSetAccess", error)) return true;
  Error ignored;
  UnmapChunk(on, block, index, &ignored);
  return false;
}

bool ReleaseChunk(const DeviceGuard& on, Block* block, size_t index, Error* error) {
  Chunk& chunk = block->chunks[index];
  if (!chunk.held || chunk.mapped) return true;
  if (!on.Check(on->release(reinterpret_cast<hip::MemoryHandle>(chunk.handle)), "hipMemRelease",
                error))
    return false;
  chunk.held = false;
  return true;
}

using ChunkStep = bool (*)(const DeviceGuard&, Block*, size_t, Error*);

// Takes a step for the first `count` chunks, and stops at the first failure.
bool TakeStep(const DeviceGuard& on, Block* block, size_t count, ChunkStep step, Error* error) {
  for (size_t i = 0; i < count; ++i) {
    if (!step(on, block, i, error)) return false;
  }
  return true;
}

// Takes a step for all chunks. Returns whether none has failed; `error` is the first failure.
bool TakeEveryStep(const DeviceGuard& on, Block* block, ChunkStep step, Error* error) {
  bool good = true;
  for (size_t i = 0; i < CountChunks(*block); ++i) {
    Error ignored;
    good = step(on, block, i, good ? error : &ignored) && good;
  }
  return good;
}

}  // namespace

const bool kHasChunks = true;

bool ReadSettings(Error* error) { return ReadChunkSetting(error); }

bool Reserve(int device, int64_t size, Block* block, Error* error) {
  const DeviceGuard on(device, error);
  if (!on) return false;
  // `size` is signed, and the others are terabytes at most, so the sums do not overflow.
  const size_t granularity = on.facts().granularity;
  const auto round_up = [granularity](size_t bytes) {
    return (bytes + granularity - 1) / granularity * granularity;
  };
  const size_t whole = round_up(static_cast<size_t>(size));
  const size_t chunk_size = round_up(GetChunkSetting());
  hip::Address address = nullptr;
  if (!on.Check(on->address_reserve(&address, whole, granularity, nullptr, 0),
                "hipMemAddressReserve", error))
    return false;
  Block made{
      device,  whole, chunk_size < whole ? chunk_size : whole, reinterpret_cast<uintptr_t>(address),
      nullptr, false};
  if (!MakeChunks(&made, error)) {
    Error ignored;
    on.Check(on->address_free(address, whole), "hipMemAddressFree", &ignored);
    return false;
  }
  *block = made;
  return true;
}

bool Map(Block* block, Error* error) {
  const DeviceGuard on(block->device, error);
  if (!on) return false;
  const size_t count = CountChunks(*block);
  // All memory is created before any is mapped: where there is too little, nothing has to be
  // unmapped, which waits for the device.
  if (TakeStep(on, block, count, CreateChunk, error) &&
      TakeStep(on, block, count, MapChunk, error)) {
    block->mapped = true;
    return true;
  }
  Error ignored;
  TakeEveryStep(on, block, UnmapChunk, &ignored);
  TakeEveryStep(on, block, ReleaseChunk, &ignored);
  return false;
}

bool Unmap(Block* block, Error* error) {
  const DeviceGuard on(block->device, error);
  if (!on || !on.Check(on->synchronize(), "hipDeviceSynchronize", error)) return false;
  if (!TakeStep(on, block, CountChunks(*block), UnmapChunk, error)) {
    // The handles still hold the contents of the chunks before the one that failed.
    Error why;
    block->mapped = TakeEveryStep(on, block, MapChunk, &why);
    if (!block->mapped) {
      const Error first = *error;
      error->Set(first.kind, "%.250s; some of the memory is lost: %.200s", first.text, why.text);
    }
    return false;
  }
  block->mapped = false;
  TakeEveryStep(on, block, ReleaseChunk, error);
  return true;
}

bool Free(Block* block, Error* error) {
  const DeviceGuard on(block->device, error);
  bool good = static_cast<bool>(on);
  if (good) {
    Error ignored;  // only the first failure is reported
    if (block->mapped) good = on.Check(on->synchronize(), "hipDeviceSynchronize", error);
    good = TakeEveryStep(on, block, UnmapChunk, good ? error : &ignored) && good;
    good = TakeEveryStep(on, block, ReleaseChunk, good ? error : &ignored) && good;
    good = on.Check(on->address_free(ChunkAddress(*block, 0), block->size), "hipMemAddressFree",
                    good ? error : &ignored) &&
           good;
  }
  DropChunks(block);
  return good;
}

// A copy names the range of one chunk as well.
bool CopyToHost(const Block& block, void* host, Error* error) {
  const DeviceGuard on(block.device, error);
  if (!on || !on.Check(on->synchronize(), "hipDeviceSynchronize", error)) return false;
  for (size_t i = 0; i < CountChunks(block); ++i) {
    void* to = static_cast<char*>(host) + ChunkOffset(block, i);
    if (!on.Check(on->copy(to, ChunkAddress(block, i), ChunkSize(block, i), hip::kDeviceToHost),
                  "hipMemcpy", error))
      return false;
  }
  return true;
}

bool CopyToDevice(const Block& block, const void* host, Error* error) {
  const DeviceGuard on(block.device, error);
  if (!on) return false;
  for (size_t i = 0; i < CountChunks(block); ++i) {
    const void* from = static_cast<const char*>(host) + ChunkOffset(block, i);
    if (!on.Check(on->copy(ChunkAddress(block, i), from, ChunkSize(block, i), hip::kHostToDevice),
                  "hipMemcpy", error))
      return false;
  }
  return true;
}

}  // namespace vllm::allocator
