// SPDX-License-Identifier: Apache-2.0
// Checks of arguments that the ops of FlashAttention 2 and 3 share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "bindings/arguments.h"

namespace vllm::flash {

// The number of 2-byte elements that the kernels load at once.
inline constexpr int64_t kLoad = 8;
inline constexpr int64_t kLoadBytes = 2 * kLoad;

// Converts a number to int, which the kernels require.
int CheckInt(const char* op, const char* name, int64_t value);

// Checks a tensor of bfloat16 or float16 on the GPU with `dims` dimensions. The elements of a row
// are adjacent, and rows begin at multiples of 16 bytes.
void CheckHalves(const Argument& argument, size_t dims);
// The same for a tensor that must have the dtype of q.
void CheckHalves(const Argument& argument, size_t dims, const Argument& q);

// Checks `count` adjacent int32 numbers on the GPU.
int* CheckInts(const Argument& argument, int64_t count, std::string_view why);

// Checks that k has the head size of q.
void CheckHeadSize(const Argument& k, const Argument& q);

// Returns the number of sequences whose beginnings, and the end of the last one, are `starts`.
int64_t CountSequences(const Argument& starts);

// Checks that of two optional arguments both or neither are given.
void CheckBothOrNeither(const char* op, const char* name, const std::optional<Tensor>& tensor,
                        const char* other_name, const std::optional<Tensor>& other);

// Returns the caller's output, which must have q's shape and dtype, or a new tensor.
Tensor TakeOrMakeOutput(const char* op, const Argument& q, const std::optional<Tensor>& out);

// Checks tables of [positions, rotated elements / 2] for a cache of `keys` rows. Returns how many
// elements of a head are rotated.
int CheckRotation(const Argument& q, const Argument& cos, const Argument& sin, int head_size,
                  int keys);

// The rotation of the queries and of the new keys.
struct Rotation {
  const Tensor& cos;
  const Tensor& sin;
  bool interleaved;
};

// Sets the parameters of the rotation, which have the same names in both versions. The head size
// `d` and the number of keys `seqlen_k` must be set before.
template <class Params>
void SetRotation(Params* params, const char* op, const Argument& q, const Rotation& rotation) {
  const Argument cos(op, "rotary_cos", rotation.cos), sin(op, "rotary_sin", rotation.sin);
  params->rotary_dim = CheckRotation(q, cos, sin, params->d, params->seqlen_k);
  params->rotary_cos_ptr = cos.tensor().data_ptr();
  params->rotary_sin_ptr = sin.tensor().data_ptr();
  params->is_rotary_interleaved = rotation.interleaved;
}

}  // namespace vllm::flash
