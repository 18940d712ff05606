// SPDX-License-Identifier: Apache-2.0
#include "bindings/library.h"
#include "core/gpu/attributes.h"

STABLE_TORCH_LIBRARY_FRAGMENT(_C_cuda_utils, m) {
  m.def("get_device_attribute(int attribute, int device_id) -> int");
  m.def("get_max_shared_memory_per_block_device_attribute(int device_id) -> int");
}

// No tensor argument determines the device.
STABLE_TORCH_LIBRARY_IMPL(_C_cuda_utils, CompositeExplicitAutograd, m) {
  m.impl("get_device_attribute", TORCH_BOX(&vllm::gpu::GetDeviceAttribute));
  m.impl("get_max_shared_memory_per_block_device_attribute",
         TORCH_BOX(&vllm::gpu::GetMaxSharedMemory));
}
