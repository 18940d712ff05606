// SPDX-License-Identifier: Apache-2.0
// vllm.cumem_allocator: an allocator for torch's CUDAPluggableAllocator. Its memory can be released
// and mapped again at the same addresses.
//
// torch calls my_malloc and my_free from any thread, with or without the GIL. They report each
// allocation to Python through two callbacks. Python then calls the functions of the module. The
// interface is upstream's. This file never holds a lock while it runs Python or waits for the GIL.
#include <Python.h>
#include <sys/types.h>

#include <cinttypes>
#include <cstdio>

#include "allocator/error.h"
#include "allocator/memory.h"
#include "allocator/mutex.h"
#include "allocator/registry.h"

#define VLLM_CONCAT_(a, b) a##b
#define VLLM_CONCAT(a, b) VLLM_CONCAT_(a, b)
#define VLLM_STRING_(a) #a
#define VLLM_STRING(a) VLLM_STRING_(a)
#define VLLM_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using vllm::allocator::Allocation;
using vllm::allocator::Block;
using vllm::allocator::Error;
using vllm::allocator::Lock;
using vllm::allocator::Mutex;
using vllm::allocator::Name;

// The callbacks of init_module. The lock lets a thread take its own reference while another thread
// replaces them.
Mutex callbacks_mutex;
PyObject* malloc_callback = nullptr;
PyObject* free_callback = nullptr;

// Holds the GIL, which the thread may already have, and sets a pending exception aside: memory is
// also freed while an exception unwinds the stack.
class Gil {
 public:
  Gil() : state_(PyGILState_Ensure()) { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~Gil() {
    PyErr_Restore(type_, value_, traceback_);
    PyGILState_Release(state_);
  }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  PyGILState_STATE state_;
  PyObject* type_ = nullptr;
  PyObject* value_ = nullptr;
  PyObject* traceback_ = nullptr;
};

// Lets other Python threads run while the driver works.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// An owned reference.
class Reference {
 public:
  explicit Reference(PyObject* object) : object_(object) {}
  ~Reference() { Py_XDECREF(object_); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;

  explicit operator bool() const { return object_ != nullptr; }
  PyObject* get() const { return object_; }

 private:
  PyObject* object_;
};

PyObject* TakeCallback(PyObject* const* place) {
  const Lock lock(&callbacks_mutex);
  Py_XINCREF(*place);
  return *place;
}

PyObject* Raise(const Error& error) {
  PyErr_SetString(PyExc_RuntimeError, error.text);
  return nullptr;
}

// Reports an error of my_malloc or my_free, which cannot raise, to sys.unraisablehook.
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

PyObject* MakeTuple(const Name& name) {
  return Py_BuildValue("(KKKK)", name.device, name.size, name.address, name.handle_address);
}

bool ParseNumber(PyObject* object, uint64_t* number) {
  const Reference index(PyNumber_Index(object));
  if (!index) return false;
  *number = PyLong_AsUnsignedLongLong(index.get());
  return *number != static_cast<uint64_t>(-1) || PyErr_Occurred() == nullptr;
}

// Reads kCount integers from a tuple of exactly that many.
template <size_t kCount>
bool ParseNumbers(PyObject* tuple, const char* what, uint64_t* const (&numbers)[kCount]) {
  if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != static_cast<Py_ssize_t>(kCount)) {
    PyErr_Format(PyExc_TypeError, "%s: expected %zu integers", what, kCount);
    return false;
  }
  for (size_t i = 0; i < kCount; ++i) {
    if (!ParseNumber(PyTuple_GetItem(tuple, static_cast<Py_ssize_t>(i)), numbers[i])) return false;
  }
  return true;
}

bool ParseName(PyObject* tuple, const char* what, Name* name) {
  return ParseNumbers(tuple, what,
                      {&name->device, &name->size, &name->address, &name->handle_address});
}

// Calls `work` without the GIL for the allocation with this name, whose state must be as `mapped`
// says.
template <typename Work>
PyObject* With(const Name& name, bool mapped, Work work) {
  Error error;
  bool good = false;
  {
    const WithoutGil without;
    Allocation* allocation = vllm::allocator::Borrow(name, mapped, &error);
    if (allocation != nullptr) {
      good = work(&allocation->block, &error);
      vllm::allocator::GiveBack(allocation);
    }
  }
  if (!good) return Raise(error);
  Py_RETURN_NONE;
}

PyObject* InitModule(PyObject*, PyObject* arguments) {
  PyObject* callbacks[2] = {};
  if (!PyArg_ParseTuple(arguments, "OO:init_module", &callbacks[0], &callbacks[1])) return nullptr;
  if (!PyCallable_Check(callbacks[0]) || !PyCallable_Check(callbacks[1])) {
    PyErr_SetString(PyExc_TypeError, "init_module: expected two callables");
    return nullptr;
  }
  PyObject* before[2] = {};
  {
    const Lock lock(&callbacks_mutex);
    before[0] = malloc_callback;
    before[1] = free_callback;
    Py_INCREF(malloc_callback = callbacks[0]);
    Py_INCREF(free_callback = callbacks[1]);
  }
  // Outside the lock, because releasing a callable may run Python.
  Py_XDECREF(before[0]);
  Py_XDECREF(before[1]);
  Py_RETURN_NONE;
}

PyObject* CreateAndMap(PyObject*, PyObject* arguments) {
  Name name;
  if (!ParseName(arguments, "python_create_and_map", &name)) return nullptr;
  return With(name, false, vllm::allocator::Map);
}

PyObject* UnmapAndRelease(PyObject*, PyObject* arguments) {
  Name name;
  if (!ParseName(arguments, "python_unmap_and_release", &name)) return nullptr;
  return With(name, true, vllm::allocator::Unmap);
}

PyObject* CopyToHost(PyObject*, PyObject* arguments) {
  Name name;
  uint64_t host = 0;
  if (!ParseNumbers(arguments, "copy_to_host",
                    {&name.device, &name.size, &name.address, &name.handle_address, &host}))
    return nullptr;
  return With(name, true, [host](Block* block, Error* error) {
    return vllm::allocator::CopyToHost(*block, reinterpret_cast<void*>(host), error);
  });
}

PyObject* CopyToDevice(PyObject*, PyObject* arguments) {
  Name name;
  uint64_t host = 0;
  if (!ParseNumbers(arguments, "copy_to_device",
                    {&name.device, &name.size, &name.address, &name.handle_address, &host}))
    return nullptr;
  return With(name, true, [host](Block* block, Error* error) {
    return vllm::allocator::CopyToDevice(*block, reinterpret_cast<const void*>(host), error);
  });
}

// Reports a new allocation to Python. Returns false if Python refuses it.
bool ReportAllocation(const Name& name) {
  const Gil gil;
  const Reference callback(TakeCallback(&malloc_callback));
  const Reference tuple(MakeTuple(name));
  const Reference result(tuple ? PyObject_CallFunctionObjArgs(callback.get(), tuple.get(), nullptr)
                               : nullptr);
  if (!result) PyErr_WriteUnraisable(callback.get());
  return static_cast<bool>(result);
}

// Tells Python that an allocation ends, and compares the four numbers that Python returns. The
// memory is freed even if they differ, because the registry is authoritative.
void ReportFree(const Name& name) {
  const Gil gil;
  const Reference callback(TakeCallback(&free_callback));
  if (!callback) return;  // never set, so Python knows of no allocation
  const Reference address(PyLong_FromUnsignedLongLong(name.address));
  const Reference result(
      address ? PyObject_CallFunctionObjArgs(callback.get(), address.get(), nullptr) : nullptr);
  Name answer;
  bool good =
      result && ParseName(result.get(), "the result of the callback for freed memory", &answer);
  if (good && (answer.device != name.device || answer.size != name.size ||
               answer.address != name.address || answer.handle_address != name.handle_address)) {
    PyErr_Format(PyExc_RuntimeError,
                 "the callback for freed memory returned another allocation: %R", result.get());
    good = false;
  }
  if (!good) PyErr_WriteUnraisable(callback.get());
}

// Frees an allocation that is no longer in the registry.
void FreeAllocation(Allocation* allocation) {
  Error error;
  if (!vllm::allocator::Free(&allocation->block, &error)) ReportError(error);
  vllm::allocator::Forget(allocation);
}

bool HaveCallbacks() {
  const Lock lock(&callbacks_mutex);
  return malloc_callback != nullptr;
}

// Maps and registers a new allocation. Returns null and sets `error` on failure.
Allocation* Allocate(ssize_t size, int device, Error* error) {
  if (size < 0) {
    error->Set(Error::Kind::kFailed, "cannot allocate %zd bytes", size);
    return nullptr;
  }
  if (!Py_IsInitialized() || !HaveCallbacks()) {
    error->Set(Error::Kind::kFailed, "cannot allocate %zd bytes: init_module has not been called",
               size);
    return nullptr;
  }
  Block block;
  if (!vllm::allocator::Reserve(device, size, &block, error)) return nullptr;
  Allocation* allocation =
      vllm::allocator::Map(&block, error) ? vllm::allocator::Remember(block) : nullptr;
  if (allocation == nullptr) {
    if (block.mapped)
      error->Set(Error::Kind::kFailed,
                 "the host has no memory left to record an allocation of %zd bytes", size);
    Error ignored;  // only the first failure is reported
    vllm::allocator::Free(&block, &ignored);
  }
  return allocation;
}

PyMethodDef methods[] = {
    {"init_module", InitModule, METH_VARARGS,
     "init_module(malloc_cb, free_cb)\n--\n\nSets the callbacks. malloc_cb is called with (device, "
     "size, address, handle) for each allocation, and free_cb with each address that is freed; it "
     "returns the same four numbers."},
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

// Returns null if no memory is left: torch then frees its cached memory, tries again and raises its
// OutOfMemoryError. Other failures also return null, and are reported first. The stream plays no
// role: the memory is ready when the function returns.
VLLM_EXPORT void* my_malloc(ssize_t size, int device, void* /*stream*/) {
  if (size == 0) return nullptr;
  Error error;
  Allocation* allocation = Allocate(size, device, &error);
  if (allocation == nullptr) {
    if (error.kind != Error::Kind::kOutOfMemory) ReportError(error);
    return nullptr;
  }
  // From here on the allocation is identified by its name: Python may free it at once, and another
  // thread may then reuse the record.
  const Name name = vllm::allocator::MakeName(*allocation);
  if (!ReportAllocation(name)) {
    Allocation* refused = vllm::allocator::Take(name.address);
    if (refused != nullptr) FreeAllocation(refused);
    return nullptr;
  }
  return reinterpret_cast<void*>(name.address);
}

// Waits for the device, no matter which stream used the memory last.
VLLM_EXPORT void my_free(void* pointer, ssize_t /*size*/, int /*device*/, void* /*stream*/) {
  if (pointer == nullptr) return;
  const uint64_t address = reinterpret_cast<uintptr_t>(pointer);
  Allocation* allocation = vllm::allocator::Take(address);
  if (allocation == nullptr) {
    Error error;
    error.Set(Error::Kind::kFailed,
              "cannot free 0x%" PRIx64 ": no allocation begins at that address", address);
    ReportError(error);
    return;
  }
  if (Py_IsInitialized()) ReportFree(vllm::allocator::MakeName(*allocation));
  FreeAllocation(allocation);
}
