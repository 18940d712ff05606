// SPDX-License-Identifier: Apache-2.0
#include "core/gpu/attributes.h"

#include <limits>
#include <stdexcept>
#include <string>

#include "core/gpu/toolkit.h"

namespace vllm::gpu {
namespace {

#if defined(__HIPCC__)
using GetAttribute = hipDeviceAttribute_t;
// HIP needs no opt-in: this is the maximum for any block.
constexpr GetAttribute kMaxSharedMemory = hipDeviceAttributeMaxSharedMemoryPerBlock;
#else
using GetAttribute = cudaDeviceAttr;
constexpr GetAttribute kMaxSharedMemory = cudaDevAttrMaxSharedMemoryPerBlockOptin;
#endif

}  // namespace

int64_t GetDeviceAttribute(int64_t attribute, int64_t device) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  const auto what = [&] {
    return "attribute " + std::to_string(attribute) + " of GPU " + std::to_string(device);
  };
  if (attribute < 0 || attribute > kMost || device > kMost)
    throw std::runtime_error(what() + ": expected numbers that the toolkit defines");
  int number = static_cast<int>(device), value = 0;
  auto error = device < 0 ? VLLM_GPU_RUNTIME(GetDevice)(&number) : VLLM_GPU_RUNTIME(Success);
  if (error == VLLM_GPU_RUNTIME(Success))
    error =
        VLLM_GPU_RUNTIME(DeviceGetAttribute)(&value, static_cast<GetAttribute>(attribute), number);
  if (error != VLLM_GPU_RUNTIME(Success)) FailRuntime(error, what());
  return value;
}

int64_t GetMaxSharedMemory(int64_t device) { return GetDeviceAttribute(kMaxSharedMemory, device); }

}  // namespace vllm::gpu
