// SPDX-License-Identifier: Apache-2.0
// A HIP runtime of a machine with one GPU, for which no library has code. Every launch fails as it
// does there. Only the functions that our libraries look up.
#include <stddef.h>
#include <stdio.h>

enum { kSuccess = 0, kNoBinaryForGpu = 209 };

typedef struct {
  unsigned x, y, z;
} Dim3;

static int last = kSuccess;

int hipGetDevice(int* device) {
  *device = 0;
  return kSuccess;
}
int hipGetDeviceCount(int* count) {
  *count = 1;
  return kSuccess;
}
int hipSetDevice(int device) {
  (void)device;
  return kSuccess;
}
// Enough multiprocessors, threads and memory for any kernel.
int hipDeviceGetAttribute(int* value, int attribute, int device) {
  (void)attribute;
  (void)device;
  *value = 65536;
  return kSuccess;
}
int hipGetLastError(void) {
  const int error = last;
  last = kSuccess;
  return error;
}
const char* hipGetErrorString(int error) {
  return error == kNoBinaryForGpu ? "no kernel image is available for execution on the device"
                                  : "another error";
}
int hipLaunchKernel(const void* kernel, Dim3 grid, Dim3 block, void** arguments, size_t shared,
                    void* stream) {
  (void)grid;
  (void)block;
  (void)arguments;
  (void)shared;
  printf("launch of a %s kernel, stream %p\n", kernel ? "known" : "null", stream);
  fflush(stdout);
  return last = kNoBinaryForGpu;
}

// A bundle of device code begins with a magic number and its address.
void** __hipRegisterFatBinary(const void* wrapper) {
  const unsigned* const words = (const unsigned*)wrapper;
  printf("code registered: %s\n", words[0] == 0x48495046u ? "HIPF" : "unknown");
  static void* modules[1024];
  static int used;
  return &modules[used++ % 1024];
}
void __hipRegisterFunction(void** module, const void* host, char* device, const char* name,
                           unsigned limit, void* a, void* b, void* c, void* d, int* e) {
  (void)module, (void)host, (void)device, (void)name, (void)limit;
  (void)a, (void)b, (void)c, (void)d, (void)e;
}
void __hipRegisterVar(void** module, void* host, char* device, const char* name, int is_external,
                      size_t size, int is_constant, int is_global) {
  (void)module, (void)host, (void)device, (void)name;
  (void)is_external, (void)size, (void)is_constant, (void)is_global;
}
