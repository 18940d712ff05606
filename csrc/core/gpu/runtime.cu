// SPDX-License-Identifier: Apache-2.0
// Queries to the toolkit and to torch for launches.
#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/gpu/launch.h"
#include "core/gpu/toolkit.h"

namespace vllm::gpu {
namespace {

#if defined(__HIPCC__)
constexpr const char* kTorchLibrary = "libtorch_hip.so";
#else
constexpr const char* kTorchLibrary = "libtorch_cuda.so";
#endif

// Results are cached for at most this many devices.
constexpr int kMaxDevices = 64;

int GetCurrentDevice() {
  int device = 0;
  CheckRuntime(VLLM_GPU_RUNTIME(GetDevice)(&device), "no GPU");
  return device;
}

#if defined(__HIPCC__)
constexpr auto kMultiprocessors = hipDeviceAttributeMultiprocessorCount;
constexpr auto kMajor = hipDeviceAttributeComputeCapabilityMajor;
constexpr auto kMinor = hipDeviceAttributeComputeCapabilityMinor;
#else
constexpr auto kMultiprocessors = cudaDevAttrMultiProcessorCount;
constexpr auto kMajor = cudaDevAttrComputeCapabilityMajor;
constexpr auto kMinor = cudaDevAttrComputeCapabilityMinor;
#endif

template <typename Which>
int GetAttribute(Which which, int device) {
  int value = 0;
  CheckRuntime(VLLM_GPU_RUNTIME(DeviceGetAttribute)(&value, which, device),
               "asking the device what it is");
  return value;
}

// A cached result of a query about a device; 0 if there is none.
using Remembered = std::atomic<int>;

// Returns the result of `ask` for the current device, which is asked once.
template <typename Ask>
int Remember(Remembered* answers, Ask ask) {
  const int device = GetCurrentDevice();
  int answer = device < kMaxDevices ? answers[device].load(std::memory_order_relaxed) : 0;
  if (answer > 0) return answer;
  answer = ask(device);
  if (device < kMaxDevices) answers[device].store(answer, std::memory_order_relaxed);
  return answer;
}

// aoti_torch_get_current_cuda_stream of libtorch's stable ABI. Its arguments are the device and the
// address that receives the stream. It returns 0 on success.
using GetStream = int32_t (*)(int32_t, void**);

// The function is in the part of torch that a CPU build lacks, and this library must load there
// too. If the caller has a tensor on a GPU, that part is already loaded, so the function is looked
// up and nothing is loaded.
GetStream FindGetStream() {
  void* library = dlopen(kTorchLibrary, RTLD_LAZY | RTLD_NOLOAD);
  void* function =
      library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream");
  if (function == nullptr) {
    throw std::runtime_error(std::string(kTorchLibrary) +
                             " is not loaded, expected a torch that is built for this GPU");
  }
  return reinterpret_cast<GetStream>(function);
}

#if defined(__HIPCC__)
// Returns "gfx90a, gfx942" for "gfx90a,gfx942".
std::string FormatArchitectures(const char* list) {
  std::string text;
  for (const char* at = list; *at != '\0'; ++at) text += *at == ',' ? ", " : std::string(1, *at);
  return text.empty() ? "others" : text;
}
#else
// Converts "900,1000" to "9.0, 10.0".
std::string FormatArchitectures(const char* list) {
  std::string text, number;
  for (const char* at = list;; ++at) {
    if (*at >= '0' && *at <= '9') {
      number += *at;
      continue;
    }
    if (number.size() > 2) {
      text += (text.empty() ? "" : ", ") + number.substr(0, number.size() - 2) + "." +
              number[number.size() - 2];
    }
    number.clear();
    if (*at == '\0') break;
  }
  return text.empty() ? "others" : text;
}
#endif

}  // namespace

void* GetCurrentStream() {
  static const GetStream get = FindGetStream();
  void* stream = nullptr;
  if (get(GetCurrentDevice(), &stream) != 0)
    throw std::runtime_error("torch does not return the current stream");
  return stream;
}

int GetMultiprocessorCount() {
  static Remembered counts[kMaxDevices];
  return Remember(counts, [](int device) {
    const int count = GetAttribute(kMultiprocessors, device);
    if (count < 1)
      throw std::runtime_error("the device does not report its number of multiprocessors");
    return count;
  });
}

int GetComputeCapability() {
  static Remembered capabilities[kMaxDevices];
  return Remember(capabilities, [](int device) {
    return GetAttribute(kMajor, device) * 10 + GetAttribute(kMinor, device);
  });
}

bool HasFnuz() {
#if defined(__HIPCC__)
  return GetComputeCapability() == 94;  // gfx940, gfx941 and gfx942
#else
  return false;
#endif
}

void CopyAsync(void* to, const void* from, size_t bytes) {
  const auto stream = static_cast<VLLM_GPU_RUNTIME(Stream_t)>(GetCurrentStream());
  const auto error =
      VLLM_GPU_RUNTIME(MemcpyAsync)(to, from, bytes, VLLM_GPU_RUNTIME(MemcpyDefault), stream);
  if (error != VLLM_GPU_RUNTIME(Success))
    FailRuntime(error, "copy of " + std::to_string(bytes) + " bytes");
}

void FailLaunch(const char* kernel, int error, const char* architectures) {
  const auto code = static_cast<decltype(VLLM_GPU_RUNTIME(GetLastError)())>(error);
  // Clears the error: the runtime would report it again for the next call.
  (void)VLLM_GPU_RUNTIME(GetLastError)();
  std::string what = std::string(kernel) + ": " + VLLM_GPU_RUNTIME(GetErrorString)(code);
#if defined(__HIPCC__)
  const bool no_code = code == hipErrorNoBinaryForGpu || code == hipErrorInvalidDeviceFunction;
#else
  const bool no_code =
      code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction;
  if (no_code) {
    int device = 0, major = 0, minor = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    what += "; the device has compute capability " + std::to_string(major) + "." +
            std::to_string(minor);
  }
#endif
  if (no_code)
    what +=
        ", expected one that the kernel was compiled for: " + FormatArchitectures(architectures);
  throw std::runtime_error(what);
}

}  // namespace vllm::gpu
