// SPDX-License-Identifier: Apache-2.0
// vllm.cumem_allocator: an allocator for torch's CUDAPluggableAllocator. Its memory can be released
// and mapped again at the same addresses.
//
// torch calls the functions of torch_functions.cc. They report each allocation to Python through
// two callbacks (callbacks.h). Python then calls the functions of the module, which are here. The
// interface is upstream's.
#include "allocator/callbacks.h"
#include "allocator/memory.h"
#include "allocator/name.h"
#include "allocator/python.h"
#include "allocator/registry.h"

namespace {

using vllm::allocator::Allocation;
using vllm::allocator::Block;
using vllm::allocator::Error;
using vllm::allocator::Name;

// Calls `work` without the GIL for the allocation with this name, whose state must be as `mapped`
// says.
template <typename Work>
PyObject* With(const Name& name, bool mapped, Work work) {
  Error error;
  bool good = false;
  {
    const vllm::allocator::WithoutGil without;
    Allocation* allocation = vllm::allocator::Borrow(name, mapped, &error);
    if (allocation != nullptr) {
      good = work(&allocation->block, &error);
      vllm::allocator::GiveBack(allocation);
    }
  }
  if (!good) return vllm::allocator::Raise(error);
  if (error.text[0] != '\0') vllm::allocator::ReportError(error);
  Py_RETURN_NONE;
}

PyObject* InitModule(PyObject*, PyObject* arguments) {
  PyObject* callbacks[2] = {};
  if (!PyArg_ParseTuple(arguments, "OO:init_module", &callbacks[0], &callbacks[1])) return nullptr;
  if (!PyCallable_Check(callbacks[0]) || !PyCallable_Check(callbacks[1])) {
    PyErr_SetString(PyExc_TypeError, "init_module: expected two callables");
    return nullptr;
  }
  Error error;
  if (!vllm::allocator::ReadSettings(&error)) return vllm::allocator::Raise(error);
  vllm::allocator::SetCallbacks(callbacks[0], callbacks[1]);
  Py_RETURN_NONE;
}

PyObject* CreateAndMap(PyObject*, PyObject* arguments) {
  Name name;
  if (!vllm::allocator::ParseTuple(arguments, "python_create_and_map", &name)) return nullptr;
  return With(name, false, vllm::allocator::Map);
}

PyObject* UnmapAndRelease(PyObject*, PyObject* arguments) {
  Name name;
  if (!vllm::allocator::ParseTuple(arguments, "python_unmap_and_release", &name)) return nullptr;
  return With(name, true, vllm::allocator::Unmap);
}

PyObject* CopyToHost(PyObject*, PyObject* arguments) {
  Name name;
  uint64_t host = 0;
  if (!vllm::allocator::ParseTuple(arguments, "copy_to_host", &name, &host)) return nullptr;
  return With(name, true, [host](Block* block, Error* error) {
    return vllm::allocator::CopyToHost(*block, reinterpret_cast<void*>(host), error);
  });
}

PyObject* CopyToDevice(PyObject*, PyObject* arguments) {
  Name name;
  uint64_t host = 0;
  if (!vllm::allocator::ParseTuple(arguments, "copy_to_device", &name, &host)) return nullptr;
  return With(name, true, [host](Block* block, Error* error) {
    return vllm::allocator::CopyToDevice(*block, reinterpret_cast<const void*>(host), error);
  });
}

PyMethodDef methods[] = {
    {"init_module", InitModule, METH_VARARGS,
     "init_module(malloc_cb, free_cb)\n--\n\nSets the callbacks. malloc_cb is called with (device, "
     "size, address, handle) for each allocation, and free_cb with each address that is freed; it "
     "returns the same tuple. The handle is the address of the driver's handle on CUDA, and a list "
     "of (address of the driver's handle, size) for each chunk on ROCm."},
    {"python_create_and_map", CreateAndMap, METH_VARARGS,
     "python_create_and_map(device, size, d_mem, p_handle)\n--\n\nMaps new memory at the "
     "addresses of an unmapped allocation."},
    {"python_unmap_and_release", UnmapAndRelease, METH_VARARGS,
     "python_unmap_and_release(device, size, d_mem, p_handle)\n--\n\nWaits for the device and "
     "releases an allocation's memory; its addresses stay reserved."},
    {"copy_to_host", CopyToHost, METH_VARARGS,
     "copy_to_host(device, size, d_mem, p_handle, host)\n--\n\nWaits for the device and copies an "
     "allocation to `size` bytes of host memory at address `host`."},
    {"copy_to_device", CopyToDevice, METH_VARARGS,
     "copy_to_device(device, size, d_mem, p_handle, host)\n--\n\nCopies `size` bytes of host "
     "memory at address `host` to an allocation."},
    {nullptr, nullptr, 0, nullptr},
};

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
    methods,
    slots,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC VLLM_CONCAT(PyInit_, VLLM_MODULE_NAME)() { return PyModuleDef_Init(&module); }
