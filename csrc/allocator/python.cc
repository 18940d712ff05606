// SPDX-License-Identifier: Apache-2.0
#include "allocator/python.h"

#include <cstdio>

namespace vllm::allocator {

PyObject* Raise(const Error& error) {
  PyErr_SetString(PyExc_RuntimeError, error.text);
  return nullptr;
}

void ReportError(const Error& error) {
  if (error.kind == Error::Kind::kEnded) return;
  if (!Py_IsInitialized()) {
    std::fprintf(stderr, "%s: %s\n", VLLM_STRING(VLLM_MODULE_NAME), error.text);
    return;
  }
  const Gil gil;
  const Reference where(PyUnicode_FromString("vllm." VLLM_STRING(VLLM_MODULE_NAME)));
  Raise(error);
  PyErr_WriteUnraisable(where.get());
}

}  // namespace vllm::allocator
