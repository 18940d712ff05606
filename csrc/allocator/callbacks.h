// SPDX-License-Identifier: Apache-2.0
// The two Python callbacks that learn of allocations. No function holds a lock while it runs Python
// or waits for the GIL.
#pragma once

#include "allocator/python.h"
#include "allocator/registry.h"

namespace vllm::allocator {

// Replaces the callbacks. The thread has the GIL.
void SetCallbacks(PyObject* on_malloc, PyObject* on_free);

bool HaveCallbacks();

// Reports a new allocation to Python. Returns false if Python refuses it.
bool ReportAllocation(const Name& name);

// Tells Python that an allocation ends, and compares the name that Python returns. The memory is
// freed even if it differs, because the registry is authoritative.
void ReportFree(const Name& name);

}  // namespace vllm::allocator
