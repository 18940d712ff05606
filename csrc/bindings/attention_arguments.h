// SPDX-License-Identifier: Apache-2.0
// Checks that the attention ops share.
#pragma once

#include <string>
#include <string_view>

#include "attention/attention.h"
#include "bindings/arguments.h"
#include "bindings/attention_heads.h"

namespace vllm {

// Checks that `isa` is upstream's name of an instruction set.
void CheckIsa(const char* op, const char* name, const std::string& isa);

// Converts auto, fp8, fp8_e4m3 or fp8_e5m2 to a type. For auto, the cache has the dtype of the
// tokens.
CacheDType CheckCacheDType(const char* op, const std::string& name, DType tokens);

// Checks a cache, [num_blocks, num_kv_heads, block_size, head_size]. The part of a block that
// belongs to one head is contiguous.
CachePages CheckPages(const Argument& argument, CacheDType dtype, const Argument& tokens);

// A vector of int32 in a tensor's memory.
struct Ints {
  const int32_t* data = nullptr;
  int64_t stride = 1;

  int32_t operator[](size_t i) const { return data[static_cast<int64_t>(i) * stride]; }
};

// Checks that the argument has one dimension of int32, at least `count` long.
Ints CheckInts(const Argument& argument, int64_t count, std::string_view why);

// Checks that the argument has at least `count` rows of int32 block numbers.
void CheckBlockTable(const Argument& table, int64_t count);

// Throws if a block of tokens [begin, end) of a request does not exist.
void CheckBlocks(const Argument& table, int64_t request, int64_t begin, int64_t end,
                 int64_t block_size, int64_t blocks);

}  // namespace vllm
