// SPDX-License-Identifier: Apache-2.0
// Calls the kernel's library. Without a device or a driver, the launch must return an error instead
// of success or a crash.
#include <cuda_runtime_api.h>

#include <cstdio>

extern "C" int scale_bfloat16(void* values, float factor, int count);

int main() {
  int devices = 0;
  bool none = cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0;
  int error = scale_bfloat16(nullptr, 2.0f, 0x100);
  std::printf("%s: %s\n", none ? "no device" : "device",
              cudaGetErrorName(static_cast<cudaError_t>(error)));
  return none ? error == cudaSuccess : 0;
}
