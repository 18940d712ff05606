// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attention/flash2/registry.h"

namespace vllm::flash2 {

// Returns the smallest compiled head size that holds heads of `size`, or 0.
int FindCompiledHeadSize(int size);

// Returns the compiled head sizes as text: "64, 128".
std::string ListCompiledHeadSizes();

// Returns whether there is a kernel for the head size, dtype and mask of `params`.
bool IsCompiled(const Params& params, bool parts);

// Returns how many rows of keys the kernels for pages and split keys load at a time. A page whose
// size is a multiple of this is read in one piece.
int GetBlockRows(int compiled_head_size);

// Launches the kernel on the current stream. `params.d_rounded` is a compiled head size. Pages, new
// keys, batch indices and more than one split need `parts`. Throws std::runtime_error that names
// the kernel if it is not compiled.
void Run(Params& params, bool parts);

}  // namespace vllm::flash2
