// SPDX-License-Identifier: Apache-2.0
// Checks that the cache ops share.
#pragma once

#include <string>

#include "bindings/arguments.h"
#include "bindings/string_argument.h"
#include "cache/cache.h"

namespace vllm {

// Returns the format of a cache for `kv_cache_dtype`. "auto" and the names of 16-bit types mean the
// type of the tokens; cache and tokens must then have the same dtype. An fp8 cache has dtype Byte
// or torch's type of the same format, and its tokens are Float, BFloat16 or Half.
CacheFormat CheckFormat(const char* op, const std::string& kv_cache_dtype, const Argument& cache,
                        const Argument& tokens);

// Checks that the dtype is Byte or torch's type of an fp8 format.
void CheckCodes(const Argument& codes, CacheFormat format);

// Returns the format that `kv_cache_dtype` names: kSame for "auto" and the 16-bit types.
CacheFormat ParseFormat(const char* op, const std::string& kv_cache_dtype);

// Checks scales: float32, one element, or one for each head if heads > 1. `stride` is set to the
// number of elements between the scales of two heads.
const float* CheckScales(const Argument& scale, int64_t heads, int64_t* stride);

// Checks slot_mapping: int64, at most `tokens` elements, each -1 or a slot of the cache. The
// elements are checked on the CPU only.
Slots CheckSlots(const Argument& slot_mapping, int64_t tokens, int64_t blocks, int64_t block_size);

}  // namespace vllm
