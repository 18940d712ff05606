// SPDX-License-Identifier: Apache-2.0
// Checks of arguments that the ops of FlashAttention 2 and 3 share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "bindings/arguments.h"

namespace vllm::flash {

// Elements of 2 bytes that the kernels load at once.
inline constexpr int64_t kLoad = 8;

[[noreturn]] void FailOp(const char* op, const std::string& what);

// A number that the kernels take as int.
int CheckedInt(const char* op, const char* name, int64_t value);

// bfloat16 or float16, on the GPU, of `dims` dimensions; elements side by side, rows that begin at multiples of 16 bytes.
void CheckMatrix(const Argument& argument, size_t dims);
// The same, with the dtype of q.
void CheckMatrix(const Argument& argument, size_t dims, const Argument& q);

// int32 numbers on the GPU, `count` of them side by side.
int* CheckedInts(const Argument& argument, int64_t count, std::string_view why);

// The caller's result, of q's shape and dtype, or a new one.
Tensor OutputOf(const char* op, const Argument& q, const std::optional<Tensor>& out);

}  // namespace vllm::flash
