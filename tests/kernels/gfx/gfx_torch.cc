// SPDX-License-Identifier: Apache-2.0
// Functions of libtorch's stable ABI that say where a tensor is. This library is loaded before
// torch, so that our libraries call these: each tensor in CPU memory is on GPU 0.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr int32_t kCpu = 0, kCuda = 1;

template <typename Function>
Function* FindInTorch(const char* name) {
  void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  auto* const function =
      torch == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(torch, name));
  if (function == nullptr) {
    std::fprintf(stderr, "emulate-gfx: torch has no %s\n", name);
    std::abort();
  }
  return function;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int32_t aoti_torch_get_device_type(void* tensor, int32_t* type) {
  static auto* const next = FindInTorch<int32_t(void*, int32_t*)>("aoti_torch_get_device_type");
  const int32_t status = next(tensor, type);
  if (status == 0 && *type == kCpu) *type = kCuda;
  return status;
}
int32_t aoti_torch_get_device_index(void*, int32_t* index) {
  *index = 0;
  return 0;
}
int32_t aoti_torch_create_device_guard(int32_t, void** guard) {
  static int one = 0;
  *guard = &one;
  return 0;
}
int32_t aoti_torch_delete_device_guard(void*) { return 0; }
int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
int32_t aoti_torch_empty_strided(int64_t rank, const int64_t* sizes, const int64_t* strides,
                                 int32_t dtype, int32_t type, int32_t index, void** tensor) {
  static auto* const next =
      FindInTorch<int32_t(int64_t, const int64_t*, const int64_t*, int32_t, int32_t, int32_t,
                          void**)>("aoti_torch_empty_strided");
  return next(rank, sizes, strides, dtype, type == kCuda ? kCpu : type, index, tensor);
}

}  // extern "C"
#pragma GCC visibility pop
