// SPDX-License-Identifier: Apache-2.0
#include "allocator/hip_runtime.h"

#include "allocator/mutex.h"
#include "core/gpu/hip/loaded_runtime.h"

namespace vllm::allocator::hip {
namespace {

bool Find(Runtime* runtime, Error* error) {
  const char* missing = nullptr;
  bool found = false;
#define VLLM_HIP_RUNTIME_FIND(member, name, result, parameters)                            \
  runtime->member = reinterpret_cast<result(*) parameters>(gpu::hip::FindFunction(#name)); \
  found = found || runtime->member != nullptr;                                             \
  if (runtime->member == nullptr && missing == nullptr) missing = #name;
  VLLM_HIP_RUNTIME_FUNCTIONS(VLLM_HIP_RUNTIME_FIND)
#undef VLLM_HIP_RUNTIME_FIND
  if (missing == nullptr) return true;
  if (!found) return error->Set(Error::Kind::kFailed, "%s", gpu::hip::kNoRuntimeText);
  return error->Set(Error::Kind::kFailed,
                    "the HIP runtime of this process has no %s: virtual memory management needs "
                    "ROCm 5.7 or newer",
                    missing);
}

}  // namespace

bool Runtime::Check(Result result, const char* call, Error* error) const {
  if (result == kSuccess) return true;
  const char* name = error_name(result);
  const char* text = error_string(result);
  const Error::Kind kind = result == kOutOfMemory     ? Error::Kind::kOutOfMemory
                           : result == kDeinitialized ? Error::Kind::kEnded
                                                      : Error::Kind::kFailed;
  error->Set(kind, "%s: %s (%s, %d)", call, text != nullptr ? text : "no description",
             name != nullptr ? name : "an error without a name", result);
  last_error();
  return false;
}

const Runtime* FindRuntime(Error* error) {
  static Mutex mutex;
  static Runtime runtime;
  static bool found = false;
  const Lock lock(&mutex);
  // A failure is not cached: torch may load a runtime after the first call.
  if (!found) found = Find(&runtime, error);
  return found ? &runtime : nullptr;
}

}  // namespace vllm::allocator::hip
