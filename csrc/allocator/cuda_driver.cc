// SPDX-License-Identifier: Apache-2.0
#include "allocator/cuda_driver.h"

#include <dlfcn.h>

#include "allocator/mutex.h"

namespace vllm::allocator::cuda {
namespace {

constexpr char kLibrary[] = "libcuda.so.1";

// The signature of cuGetProcAddress from CUDA 11.3, and the one from 12.0. The latter also reports
// why it found nothing, which we do not need.
using GetProcAddress = Result (*)(const char*, void**, int, uint64_t);
using GetProcAddressV2 = Result (*)(const char*, void**, int, uint64_t, int*);

struct Entries {
  explicit Entries(void* from)
      : library(from),
        second(reinterpret_cast<GetProcAddressV2>(dlsym(from, "cuGetProcAddress_v2"))),
        first(reinterpret_cast<GetProcAddress>(dlsym(from, "cuGetProcAddress"))) {}

  // The driver's own lookup comes first, because it knows which version of a function's interface
  // each CUDA release expects. Drivers before 11.3 do not have it.
  void* Find(const char* name, const char* symbol, int version) const {
    void* found = nullptr;
    if (second != nullptr) {
      if (second(name, &found, version, 0, nullptr) != kSuccess) found = nullptr;
    } else if (first != nullptr && first(name, &found, version, 0) != kSuccess) {
      found = nullptr;
    }
    return found != nullptr ? found : dlsym(library, symbol);
  }

  void* library;
  GetProcAddressV2 second;
  GetProcAddress first;
};

bool Load(Driver* driver, Error* error) {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return error->Set(Error::Kind::kFailed,
                      "the NVIDIA driver is not installed: cannot load %s (%s)", kLibrary,
                      why != nullptr ? why : "no reason given");
  }
  const Entries entries(library);
  const char* missing = nullptr;
#define VLLM_CUDA_DRIVER_FIND(member, name, symbol, version, parameters)                          \
  driver->member = reinterpret_cast<Result(*) parameters>(entries.Find(#name, #symbol, version)); \
  if (driver->member == nullptr && missing == nullptr) missing = #name;
  VLLM_CUDA_DRIVER_FUNCTIONS(VLLM_CUDA_DRIVER_FIND)
#undef VLLM_CUDA_DRIVER_FIND
  if (missing != nullptr) {
    dlclose(library);
    return error->Set(
        Error::Kind::kFailed,
        "%s has no %s: virtual memory management needs a driver for CUDA 10.2 or newer", kLibrary,
        missing);
  }
  const Result result = driver->init(0);
  if (result != kSuccess) {
    driver->Fail(result, "cuInit", error);
    dlclose(library);
    return false;
  }
  return true;  // the library stays loaded because its functions may be called at any time
}

}  // namespace

bool Driver::Fail(Result result, const char* call, Error* error) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (error_name(result, &name) != kSuccess || name == nullptr) name = "an error without a name";
  if (error_string(result, &text) != kSuccess || text == nullptr) text = "no description";
  const Error::Kind kind = result == kOutOfMemory     ? Error::Kind::kOutOfMemory
                           : result == kDeinitialized ? Error::Kind::kEnded
                                                      : Error::Kind::kFailed;
  return error->Set(kind, "%s: %s (%s, %d)", call, text, name, result);
}

const Driver* LoadDriver(Error* error) {
  static Mutex mutex;
  static Driver driver;
  static bool loaded = false;
  const Lock lock(&mutex);
  // A failure is not cached: the driver's kernel module may be loaded after the first call.
  if (!loaded) loaded = Load(&driver, error);
  return loaded ? &driver : nullptr;
}

}  // namespace vllm::allocator::cuda
