// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attention/flash3/registry.h"

namespace vllm::flash3 {

// The smallest head size, of those with a kernel for the dtype, that holds heads of `size`; 0 when
// there is none.
int CompiledHeadSize(int size, bool bfloat16);

// "64, 128": the head sizes with a kernel for the dtype.
std::string CompiledHeadSizes(bool bfloat16);

// `params.d_rounded` and `params.is_bf16` say which head size and dtype.
bool IsCompiled(const Params& params, Variant variant);
// The kernel writes new keys into the cache.
bool Appends(const Params& params, Variant variant);
// There are kernels that combine parts.
bool Combines();

// "heads of 64, bfloat16, split keys, pages": for messages.
std::string VariantText(const Params& params, Variant variant);

// Launches on the current stream, and combines the parts where the variant is split. The variant is
// compiled.
void Run(Params* params, Variant variant);

// Writes down on the current stream how the work is divided among thread blocks: `params` points to
// memory for it. A tile has `rows` rows of queries and `keys` keys.
void Divide(Params* params, int rows, int keys);

}  // namespace vllm::flash3
