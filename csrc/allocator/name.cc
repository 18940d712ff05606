// SPDX-License-Identifier: Apache-2.0
#include "allocator/name.h"

#include "allocator/memory.h"

namespace vllm::allocator {
namespace {

PyObject* MakeHandle(const Name& name) {
  return kHasChunks ? MakeChunkList(name) : PyLong_FromUnsignedLongLong(name.handle_address);
}

bool ParseHandle(PyObject* object, const char* what, Name* name) {
  if (kHasChunks) return ParseChunkList(object, what, name);
  name->chunk_size = name->size;
  return ParseNumber(object, &name->handle_address);
}

}  // namespace

PyObject* MakeTuple(const Name& name) {
  const Reference handle(MakeHandle(name));
  if (!handle) return nullptr;
  return Py_BuildValue("(KKKO)", name.device, name.size, name.address, handle.get());
}

bool ParseNumber(PyObject* object, uint64_t* number) {
  const Reference index(PyNumber_Index(object));
  if (!index) return false;
  *number = PyLong_AsUnsignedLongLong(index.get());
  return *number != static_cast<uint64_t>(-1) || PyErr_Occurred() == nullptr;
}

bool ParseTuple(PyObject* tuple, const char* what, Name* name, uint64_t* host) {
  const Py_ssize_t count = host != nullptr ? 5 : 4;
  if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != count) {
    PyErr_Format(PyExc_TypeError, "%s: expected %zd values: device, size, address, handle%s", what,
                 count, host != nullptr ? ", host" : "");
    return false;
  }
  return ParseNumber(PyTuple_GetItem(tuple, 0), &name->device) &&
         ParseNumber(PyTuple_GetItem(tuple, 1), &name->size) &&
         ParseNumber(PyTuple_GetItem(tuple, 2), &name->address) &&
         ParseHandle(PyTuple_GetItem(tuple, 3), what, name) &&
         (host == nullptr || ParseNumber(PyTuple_GetItem(tuple, 4), host));
}

}  // namespace vllm::allocator
