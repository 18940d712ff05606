// SPDX-License-Identifier: Apache-2.0
// Forwards the functions of the GPU's libraries that the engine's kernels call to the copies that
// torch has loaded.
//
// A library that named these libraries as dependencies would not load on a login node, next to a
// torch for the CPU, or next to a torch for another release of CUDA. Nothing is loaded here: where
// a tensor is on a GPU, torch has loaded all of them.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>

namespace {

constexpr const char* kTorch[] = {"libtorch_cuda.so", nullptr};
constexpr const char* kTorchBase[] = {"libtorch_cuda.so", "libc10_cuda.so", nullptr};
constexpr const char* kDriver[] = {"libcuda.so.1", nullptr};
constexpr const char* kBlas[] = {"libcublas.so.13", "libcublas.so.12", nullptr};
// The results of functions of torch, the driver and cuBLAS whose library is not loaded:
// AOTI_TORCH_FAILURE, CUDA_ERROR_NOT_INITIALIZED, CUBLAS_STATUS_NOT_INITIALIZED.
constexpr int kTorchFailure = 1, kDriverMissing = 3, kBlasMissing = 1;

// Returns the function `name` of the first of `libraries` that is loaded and has it, else null. A
// library that is found stays loaded, so its functions remain valid.
void* Find(const char* const* libraries, const char* name) {
  for (; *libraries != nullptr; ++libraries) {
    void* library = dlopen(*libraries, RTLD_LAZY | RTLD_NOLOAD);
    void* function = library == nullptr ? nullptr : dlsym(library, name);
    if (function != nullptr) return function;
  }
  std::fprintf(stderr, "vllm: %s was called, but the library with it is not loaded\n", name);
  return nullptr;
}

// Calls the function `name`, or returns `missing`. A function that was not found is looked up again
// by the next call, because torch may load its library in between.
template <typename Result, typename... Arguments>
Result Forward(void** known, const char* const* libraries, const char* name, Result missing,
               Arguments... arguments) {
  void* function = __atomic_load_n(known, __ATOMIC_ACQUIRE);
  if (function == nullptr) {
    function = Find(libraries, name);
    if (function == nullptr) return missing;
    __atomic_store_n(known, function, __ATOMIC_RELEASE);
  }
  return reinterpret_cast<Result (*)(Arguments...)>(function)(arguments...);
}

}  // namespace

// The types are those of the calling convention: handles are pointers, enumerations are int.
extern "C" {

int32_t aoti_torch_get_current_cuda_stream(int32_t device, void** stream) {
  static void* known = nullptr;
  return Forward(&known, kTorch, __func__, int32_t{kTorchFailure}, device, stream);
}

int32_t torch_get_current_cuda_blas_handle(void** handle) {
  static void* known = nullptr;
  return Forward(&known, kTorch, __func__, int32_t{kTorchFailure}, handle);
}

int32_t torch_c10_cuda_check_msg(int32_t error, const char* file, const char* function,
                                 uint32_t line, bool with_assertions, char** message) {
  static void* known = nullptr;
  return Forward(&known, kTorchBase, __func__, int32_t{kTorchFailure}, error, file, function, line,
                 with_assertions, message);
}

void torch_c10_cuda_free_error_msg(char* message) {
  void* function = Find(kTorchBase, __func__);
  if (function != nullptr) reinterpret_cast<void (*)(char*)>(function)(message);
}

int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags,
                        int* status) {
  static void* known = nullptr;
  return Forward(&known, kDriver, __func__, kDriverMissing, name, function, version, flags, status);
}

int cuPointerGetAttribute(void* data, int attribute, uint64_t pointer) {
  static void* known = nullptr;
  return Forward(&known, kDriver, __func__, kDriverMissing, data, attribute, pointer);
}

int cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes,
                           const uint64_t* strides, const uint32_t* box,
                           const uint32_t* element_strides, int interleave, int swizzle,
                           int promotion, int fill) {
  static void* known = nullptr;
  return Forward(&known, kDriver, __func__, kDriverMissing, map, type, rank, address, sizes,
                 strides, box, element_strides, interleave, swizzle, promotion, fill);
}

int cublasHgemm(void* handle, int transposed_a, int transposed_b, int m, int n, int k,
                const void* alpha, const void* a, int lda, const void* b, int ldb, const void* beta,
                void* c, int ldc) {
  static void* known = nullptr;
  return Forward(&known, kBlas, __func__, kBlasMissing, handle, transposed_a, transposed_b, m, n, k,
                 alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // extern "C"
