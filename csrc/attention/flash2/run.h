// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attention/flash2/registry.h"

namespace vllm::flash2 {

// The smallest head size, of those that are compiled, that holds heads of `size`; 0 when there is
// none.
int CompiledHeadSize(int size);

// "64 and 128": the head sizes that are compiled.
std::string CompiledHeadSizes();

// There is a kernel for the head size, dtype and mask of `params`.
bool IsCompiled(const Params& params, bool parts);

// Rows of keys that the kernels over pages and parts take at a time: a page that is a multiple is
// read in one piece.
int BlockRows(int compiled_head_size);

// Launches on the current stream. `params.d_rounded` is a compiled head size. Pages, new keys and
// batch indices need `parts`, and so does a number of splits above 1. Throws std::runtime_error
// that names the kernel when it is not compiled.
void Run(Params& params, bool parts);

}  // namespace vllm::flash2
