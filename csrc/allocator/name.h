// SPDX-License-Identifier: Apache-2.0
// Names of allocations as Python objects: (device, size, address, handle).
#pragma once

#include "allocator/python.h"
#include "allocator/registry.h"

namespace vllm::allocator {

// Returns a new reference to the tuple, or null with an exception.
PyObject* MakeTuple(const Name& name);

// Reads a tuple of four objects, or of five if `host` is not null: the fifth is an address of host
// memory. Returns false with an exception if it is no such tuple.
bool ParseTuple(PyObject* tuple, const char* what, Name* name, uint64_t* host = nullptr);

// Reads an integer from 0 to 2^64 - 1. Returns false with an exception if it is none.
bool ParseNumber(PyObject* object, uint64_t* number);

// The handle where blocks have chunks (kHasChunks): a list with the address of the driver's handle
// and the size of each chunk. Elsewhere it is a number, the address of the driver's handle.
PyObject* MakeChunkList(const Name& name);
// The other members of `name` are known. If the list can be no handle of such an allocation, the
// name becomes one that no allocation has.
bool ParseChunkList(PyObject* list, const char* what, Name* name);

}  // namespace vllm::allocator
