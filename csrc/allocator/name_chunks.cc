// SPDX-License-Identifier: Apache-2.0
// Handles that are lists of chunks. The first pair of a list determines the others: the records of
// chunks are an array, and all chunks but the last have the same size.
#include "allocator/name.h"

namespace vllm::allocator {
namespace {

// One chunk of a name.
struct Pair {
  uint64_t handle_address = 0;
  uint64_t size = 0;
};

Pair GetPair(const Name& name, uint64_t index) {
  const uint64_t rest = name.size - index * name.chunk_size;
  return {name.handle_address + index * sizeof(Chunk),
          rest < name.chunk_size ? rest : name.chunk_size};
}

bool ParsePair(PyObject* list, Py_ssize_t index, const char* what, Pair* pair) {
  const Reference object(PySequence_GetItem(list, index));
  if (!object) return false;
  if (!PyTuple_Check(object.get()) || PyTuple_Size(object.get()) != 2) {
    PyErr_Format(PyExc_TypeError, "%s: chunk %zd: expected (handle, size)", what, index);
    return false;
  }
  return ParseNumber(PyTuple_GetItem(object.get(), 0), &pair->handle_address) &&
         ParseNumber(PyTuple_GetItem(object.get(), 1), &pair->size);
}

uint64_t CountPairs(const Name& name) {
  if (name.chunk_size == 0) return 0;
  return name.size / name.chunk_size + (name.size % name.chunk_size != 0);
}

}  // namespace

PyObject* MakeChunkList(const Name& name) {
  const auto count = static_cast<Py_ssize_t>(CountPairs(name));
  Reference list(PyList_New(count));
  if (!list) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Pair pair = GetPair(name, static_cast<uint64_t>(i));
    PyObject* object = Py_BuildValue("(KK)", pair.handle_address, pair.size);
    if (object == nullptr || PyList_SetItem(list.get(), i, object) != 0) return nullptr;
  }
  return list.Release();
}

bool ParseChunkList(PyObject* object, const char* what, Name* name) {
  if (!PyList_Check(object)) {
    PyErr_Format(PyExc_TypeError, "%s: expected a list of chunks, each (handle, size)", what);
    return false;
  }
  const Py_ssize_t count = PyList_Size(object);
  bool same = true;
  for (Py_ssize_t i = 0; i < count; ++i) {
    Pair pair;
    if (!ParsePair(object, i, what, &pair)) return false;
    if (i == 0) {
      name->handle_address = pair.handle_address;
      name->chunk_size = pair.size;
      same = CountPairs(*name) == static_cast<uint64_t>(count);
    }
    if (!same) continue;
    const Pair expected = GetPair(*name, static_cast<uint64_t>(i));
    same = pair.handle_address == expected.handle_address && pair.size == expected.size;
  }
  if (!same) name->chunk_size = 0;  // no allocation has chunks of 0 bytes
  return true;
}

}  // namespace vllm::allocator
