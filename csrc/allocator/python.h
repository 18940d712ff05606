// SPDX-License-Identifier: Apache-2.0
// Helpers for the limited API of Python: the GIL, owned references and errors.
#pragma once

#include <Python.h>

#include "allocator/error.h"

#define VLLM_CONCAT_(a, b) a##b
#define VLLM_CONCAT(a, b) VLLM_CONCAT_(a, b)
#define VLLM_STRING_(a) #a
#define VLLM_STRING(a) VLLM_STRING_(a)

namespace vllm::allocator {

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
  PyObject* Release() {
    PyObject* object = object_;
    object_ = nullptr;
    return object;
  }

 private:
  PyObject* object_;
};

// Raises RuntimeError. Returns null.
PyObject* Raise(const Error& error);

// Reports an error of a function that cannot raise to sys.unraisablehook. The thread may have the
// GIL or not.
void ReportError(const Error& error);

}  // namespace vllm::allocator
