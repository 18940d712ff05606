// SPDX-License-Identifier: Apache-2.0
// Checks that the cache ops share.
#pragma once

#include <string>

#include "bindings/arguments.h"
#include "bindings/string_argument.h"
#include "cache/cache.h"

namespace vllm {

// What `kv_cache_dtype` makes of a cache. "auto" and the names of 16-bit types mean the type of the
// tokens: then cache and tokens have one dtype. fp8 caches are of dtype Byte or of torch's type of
// the same format, their tokens Float, BFloat16 or Half.
CacheFormat CheckFormat(const char* op, const std::string& kv_cache_dtype, const Argument& cache,
                        const Argument& tokens);

// The format that `kv_cache_dtype` names, kSame for "auto" and its like.
CacheFormat NamedFormat(const char* op, const std::string& kv_cache_dtype);

// Scales: float32, one element, or one for each head where heads > 1 are given. `stride` gets the
// elements between two heads' scales.
const float* CheckScales(const Argument& scale, int64_t heads, int64_t* stride);

// slot_mapping: int64, at most `tokens` elements, each -1 or a slot of the cache; what it holds is
// checked on the CPU alone.
Slots CheckSlots(const Argument& slot_mapping, int64_t tokens, int64_t blocks, int64_t block_size);

}  // namespace vllm
