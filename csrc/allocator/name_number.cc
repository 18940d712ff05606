// SPDX-License-Identifier: Apache-2.0
// On CUDA the handle is a number, the address of the driver's handle. The allocation is one chunk.
#include "allocator/name.h"

namespace vllm::allocator {

PyObject* MakeHandle(const Name& name) { return PyLong_FromUnsignedLongLong(name.handle_address); }

bool ParseHandle(PyObject* object, const char* /*what*/, Name* name) {
  name->chunk_size = name->size;
  return ParseNumber(object, &name->handle_address);
}

}  // namespace vllm::allocator
