// SPDX-License-Identifier: Apache-2.0
#include "allocator/callbacks.h"

#include "allocator/mutex.h"
#include "allocator/name.h"

namespace vllm::allocator {
namespace {

// The lock lets a thread take its own reference while another thread replaces the callbacks.
Mutex mutex;
PyObject* malloc_callback = nullptr;
PyObject* free_callback = nullptr;

PyObject* TakeCallback(PyObject* const* place) {
  const Lock lock(&mutex);
  Py_XINCREF(*place);
  return *place;
}

}  // namespace

void SetCallbacks(PyObject* on_malloc, PyObject* on_free) {
  PyObject* before[2] = {};
  {
    const Lock lock(&mutex);
    before[0] = malloc_callback;
    before[1] = free_callback;
    Py_INCREF(malloc_callback = on_malloc);
    Py_INCREF(free_callback = on_free);
  }
  // Outside the lock, because releasing a callable may run Python.
  Py_XDECREF(before[0]);
  Py_XDECREF(before[1]);
}

bool HaveCallbacks() {
  const Lock lock(&mutex);
  return malloc_callback != nullptr;
}

bool ReportAllocation(const Name& name) {
  const Gil gil;
  const Reference callback(TakeCallback(&malloc_callback));
  const Reference tuple(MakeTuple(name));
  const Reference result(tuple ? PyObject_CallFunctionObjArgs(callback.get(), tuple.get(), nullptr)
                               : nullptr);
  if (!result) PyErr_WriteUnraisable(callback.get());
  return static_cast<bool>(result);
}

void ReportFree(const Name& name) {
  const Gil gil;
  const Reference callback(TakeCallback(&free_callback));
  if (!callback) return;  // never set, so Python knows of no allocation
  const Reference address(PyLong_FromUnsignedLongLong(name.address));
  const Reference result(
      address ? PyObject_CallFunctionObjArgs(callback.get(), address.get(), nullptr) : nullptr);
  Name answer;
  bool good =
      result && ParseTuple(result.get(), "the result of the callback for freed memory", &answer);
  if (good && !Same(answer, name)) {
    PyErr_Format(PyExc_RuntimeError,
                 "the callback for freed memory returned another allocation: %R", result.get());
    good = false;
  }
  if (!good) PyErr_WriteUnraisable(callback.get());
}

}  // namespace vllm::allocator
