// SPDX-License-Identifier: Apache-2.0
#include "core/gpu/hip/loaded_runtime.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstring>
#include <string>

namespace vllm::gpu::hip {
namespace {

constexpr const char kStem[] = "libamdhip64";

// Copies the path of the first loaded object whose file is libamdhip64.so, with any suffix.
int CopyPath(dl_phdr_info* object, size_t, void* found) {
  const char* path = object->dlpi_name;
  if (path == nullptr) return 0;
  const char* slash = std::strrchr(path, '/');
  const char* file = slash == nullptr ? path : slash + 1;
  if (std::strncmp(file, kStem, sizeof(kStem) - 1) != 0) return 0;
  *static_cast<std::string*>(found) = path;
  return 1;
}

// The handle of the loaded runtime; null when there is none yet. A runtime that is found stays: its
// reference is never given back, so its functions remain valid.
void* FindRuntime() {
  static std::atomic<void*> runtime{nullptr};
  void* handle = runtime.load(std::memory_order_acquire);
  if (handle != nullptr) return handle;
  std::string path;
  dl_iterate_phdr(CopyPath, &path);
  if (path.empty()) return nullptr;
  handle = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  runtime.store(handle, std::memory_order_release);
  return handle;
}

}  // namespace

void* FindFunction(const char* name) {
  void* runtime = FindRuntime();
  return runtime == nullptr ? nullptr : dlsym(runtime, name);
}

}  // namespace vllm::gpu::hip
