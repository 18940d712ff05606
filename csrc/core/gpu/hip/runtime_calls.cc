// SPDX-License-Identifier: Apache-2.0
// The functions of HIP's runtime that our code calls, and those that the compiler calls for it, as
// forwards to the runtime that the process has loaded. A library with them has no libamdhip64 in
// DT_NEEDED: it loads on a machine without ROCm, and uses torch's runtime where there is one.
//
// The declarations are ours: HIP's headers give some of these functions C++ overloads. In HIP's ABI
// from 5.7 to 7.2 handles are pointers and enumerations are int.
#include <atomic>
#include <cstddef>
#include <mutex>
#include <vector>

#include "core/gpu/hip/loaded_runtime.h"

namespace vllm::gpu::hip {
namespace {

struct Dim3 {
  unsigned x, y, z;
};
struct IpcHandle {
  char bytes[64];
};

// Looks a function up when it is first called, and again as long as there is no runtime: torch may
// load one after us.
template <typename Function>
class Lookup {
 public:
  explicit constexpr Lookup(const char* name) : name_(name) {}

  Function* Get() {
    Function* function = function_.load(std::memory_order_acquire);
    if (function == nullptr) {
      function = reinterpret_cast<Function*>(FindFunction(name_));
      function_.store(function, std::memory_order_release);
    }
    return function;
  }

 private:
  const char* name_;
  std::atomic<Function*> function_{nullptr};
};

// Constructors of a library register its device code when it is loaded, which may be before there
// is a runtime. The registrations are kept, and handed on once, before the first launch.
struct DeviceFunction {
  const void* host;
  char* device;
  const char* name;
};
struct DeviceVariable {
  void* host;
  char* device;
  const char* name;
  int is_external;
  size_t size;
  int is_constant;
  int is_global;
};
struct DeviceCode {
  const void* bundle;
  std::vector<DeviceFunction> functions;
  std::vector<DeviceVariable> variables;
};

// Constructed on first use: constructors of other files call in here in any order.
std::vector<DeviceCode*>& RegisteredCode() {
  static auto* const code = new std::vector<DeviceCode*>;
  return *code;
}
std::mutex& RegistrationMutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

using RegisterFatBinary = void**(const void*);
using RegisterFunction = void(void**, const void*, char*, const char*, unsigned, void*, void*,
                              void*, void*, int*);
using RegisterVariable = void(void**, void*, char*, const char*, int, size_t, int, int);

// Hands all device code to the runtime. Returns whether there is one.
bool RegisterDeviceCode() {
  static std::atomic<bool> registered{false};
  if (registered.load(std::memory_order_acquire)) return true;
  const std::lock_guard<std::mutex> lock(RegistrationMutex());
  if (registered.load(std::memory_order_relaxed)) return true;
  const auto add_code =
      reinterpret_cast<RegisterFatBinary*>(FindFunction("__hipRegisterFatBinary"));
  const auto add_function =
      reinterpret_cast<RegisterFunction*>(FindFunction("__hipRegisterFunction"));
  const auto add_variable = reinterpret_cast<RegisterVariable*>(FindFunction("__hipRegisterVar"));
  if (add_code == nullptr || add_function == nullptr || add_variable == nullptr) return false;
  for (const DeviceCode* code : RegisteredCode()) {
    void** const module = add_code(code->bundle);
    for (const DeviceFunction& each : code->functions) {
      add_function(module, each.host, each.device, each.name, ~0u, nullptr, nullptr, nullptr,
                   nullptr, nullptr);
    }
    for (const DeviceVariable& each : code->variables) {
      add_variable(module, each.host, each.device, each.name, each.is_external, each.size,
                   each.is_constant, each.is_global);
    }
  }
  registered.store(true, std::memory_order_release);
  return true;
}

}  // namespace
}  // namespace vllm::gpu::hip

// Defines `name` as a forward with these parameters, which returns HIP's status.
#define VLLM_HIP_FORWARD(name, parameters, ...)                                      \
  int name parameters {                                                              \
    static vllm::gpu::hip::Lookup<int parameters> lookup(#name);                     \
    const auto function = lookup.Get();                                              \
    return function == nullptr ? vllm::gpu::hip::kNoRuntime : function(__VA_ARGS__); \
  }

using vllm::gpu::hip::DeviceCode;
using vllm::gpu::hip::Dim3;
using vllm::gpu::hip::IpcHandle;

extern "C" {
#pragma GCC visibility push(hidden)

VLLM_HIP_FORWARD(hipGetDevice, (int* device), device)
VLLM_HIP_FORWARD(hipGetLastError, ())
VLLM_HIP_FORWARD(hipDeviceGetAttribute, (int* value, int attribute, int device), value, attribute,
                 device)
VLLM_HIP_FORWARD(hipDeviceSynchronize, ())
VLLM_HIP_FORWARD(hipExtMallocWithFlags, (void** memory, size_t bytes, unsigned flags), memory,
                 bytes, flags)
VLLM_HIP_FORWARD(hipFree, (void* memory), memory)
VLLM_HIP_FORWARD(hipMemset, (void* memory, int value, size_t bytes), memory, value, bytes)
VLLM_HIP_FORWARD(hipMemcpy, (void* to, const void* from, size_t bytes, int kind), to, from, bytes,
                 kind)
VLLM_HIP_FORWARD(hipMemcpyAsync, (void* to, const void* from, size_t bytes, int kind, void* stream),
                 to, from, bytes, kind, stream)
VLLM_HIP_FORWARD(hipMemGetAddressRange, (void** base, size_t* bytes, void* address), base, bytes,
                 address)
VLLM_HIP_FORWARD(hipStreamIsCapturing, (void* stream, int* status), stream, status)
VLLM_HIP_FORWARD(hipIpcGetMemHandle, (IpcHandle * handle, void* memory), handle, memory)
VLLM_HIP_FORWARD(hipIpcOpenMemHandle, (void** memory, IpcHandle handle, unsigned flags), memory,
                 handle, flags)
VLLM_HIP_FORWARD(__hipPushCallConfiguration, (Dim3 grid, Dim3 block, size_t shared, void* stream),
                 grid, block, shared, stream)
VLLM_HIP_FORWARD(__hipPopCallConfiguration,
                 (Dim3 * grid, Dim3* block, size_t* shared, void** stream), grid, block, shared,
                 stream)

const char* hipGetErrorString(int error) {
  static vllm::gpu::hip::Lookup<const char*(int)> lookup("hipGetErrorString");
  const auto function = lookup.Get();
  return function == nullptr ? vllm::gpu::hip::kNoRuntimeText : function(error);
}

int hipLaunchKernel(const void* kernel, Dim3 grid, Dim3 block, void** arguments, size_t shared,
                    void* stream) {
  static vllm::gpu::hip::Lookup<int(const void*, Dim3, Dim3, void**, size_t, void*)> lookup(
      "hipLaunchKernel");
  const auto function = lookup.Get();
  if (function == nullptr || !vllm::gpu::hip::RegisterDeviceCode())
    return vllm::gpu::hip::kNoRuntime;
  return function(kernel, grid, block, arguments, shared, stream);
}

void** __hipRegisterFatBinary(const void* bundle) {
  const std::lock_guard<std::mutex> lock(vllm::gpu::hip::RegistrationMutex());
  auto* const code = new DeviceCode{bundle, {}, {}};
  vllm::gpu::hip::RegisteredCode().push_back(code);
  return reinterpret_cast<void**>(code);
}

void __hipRegisterFunction(void** module, const void* host, char* device, const char* name,
                           unsigned, void*, void*, void*, void*, int*) {
  reinterpret_cast<DeviceCode*>(module)->functions.push_back({host, device, name});
}

void __hipRegisterVar(void** module, void* host, char* device, const char* name, int is_external,
                      size_t size, int is_constant, int is_global) {
  reinterpret_cast<DeviceCode*>(module)->variables.push_back(
      {host, device, name, is_external, size, is_constant, is_global});
}

// Called when the process ends, when the runtime may be gone already. The system frees everything.
void __hipUnregisterFatBinary(void**) {}

#pragma GCC visibility pop
}
