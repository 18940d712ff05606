// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attention/flash3/registry.h"

namespace vllm::flash3 {

// Returns the smallest head size with a kernel for the dtype that holds heads of `size`, or 0.
int FindCompiledHeadSize(int size, bool bfloat16);

// Returns the head sizes with a kernel for the dtype as text: "64, 128".
std::string ListCompiledHeadSizes(bool bfloat16);

// Returns whether the variant is compiled for the head size `params.d_rounded` and the dtype
// `params.is_bf16`.
bool IsCompiled(const Params& params, Variant variant);
// Returns whether the kernel can append new keys to the cache.
bool CanAppend(const Params& params, Variant variant);
// Returns whether there are kernels that combine parts.
bool CanCombine();

// Describes a kernel in messages: "heads of 64, bfloat16, split keys, pages".
std::string DescribeVariant(const Params& params, Variant variant);

// Launches a compiled variant on the current stream. If it splits keys, the kernel that combines
// the parts follows.
void Run(Params* params, Variant variant);

// Launches, on the current stream, the kernel that divides the work among thread blocks and writes
// the division to the memory that `params` points to. A tile has `rows` rows of queries and `keys`
// keys.
void DivideWork(Params* params, int rows, int keys);

}  // namespace vllm::flash3
