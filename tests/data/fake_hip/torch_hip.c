// SPDX-License-Identifier: Apache-2.0
// What our libraries see of torch for ROCm, preloaded next to a torch for CPUs: every tensor is on
// the first GPU, whose current stream is a fixed address. Functions of libtorch's stable ABI.
#include <stdint.h>

int32_t aoti_torch_get_device_type(void* tensor, int32_t* type) {
  (void)tensor;
  *type = 1;  // the device that torch for ROCm calls CUDA
  return 0;
}
int32_t aoti_torch_get_device_index(void* tensor, int32_t* index) {
  (void)tensor;
  *index = 0;
  return 0;
}
int32_t aoti_torch_create_device_guard(int32_t index, void** guard) {
  static int guards;
  (void)index;
  *guard = &guards;
  return 0;
}
int32_t aoti_torch_delete_device_guard(void* guard) {
  (void)guard;
  return 0;
}
int32_t aoti_torch_get_current_cuda_stream(int32_t device, void** stream) {
  (void)device;
  *stream = (void*)0x5000;
  return 0;
}
