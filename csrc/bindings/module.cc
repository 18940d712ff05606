// SPDX-License-Identifier: Apache-2.0
// Makes the library an extension module, so that `import vllm._C` works without
// torch.ops.load_library. The module is empty: ops register themselves when the library is loaded.
#include <Python.h>

// Weak, because the library must also load into a process without Python, such as a C++ server on
// libtorch.
#pragma weak PyModuleDef_Init

#define VLLM_CONCAT_(a, b) a##b
#define VLLM_CONCAT(a, b) VLLM_CONCAT_(a, b)
#define VLLM_STRING_(a) #a
#define VLLM_STRING(a) VLLM_STRING_(a)

namespace {

PyModuleDef_Slot slots[] = {
#if defined(Py_mod_gil)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    VLLM_STRING(VLLM_MODULE_NAME),
    nullptr,
    0,
    nullptr,
    slots,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC VLLM_CONCAT(PyInit_, VLLM_MODULE_NAME)() { return PyModuleDef_Init(&module); }
