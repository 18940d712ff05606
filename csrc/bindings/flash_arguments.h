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
inline constexpr int64_t kLoadBytes = 2 * kLoad;

// A number that the kernels take as int.
int CheckInt(const char* op, const char* name, int64_t value);

// bfloat16 or float16, on the GPU, of `dims` dimensions; elements side by side, rows that begin at
// multiples of 16 bytes.
void CheckHalves(const Argument& argument, size_t dims);
// The same, with the dtype of q.
void CheckHalves(const Argument& argument, size_t dims, const Argument& q);

// int32 numbers on the GPU, `count` of them side by side.
int* CheckInts(const Argument& argument, int64_t count, std::string_view why);

// The caller's result, of q's shape and dtype, or a new one.
Tensor TakeOrMakeOutput(const char* op, const Argument& q, const std::optional<Tensor>& out);

// Tables of [positions, rotated elements / 2] for `keys` rows of a cache. Returns how many elements
// of a head are rotated.
int CheckRotation(const Argument& q, const Argument& cos, const Argument& sin, int head_size,
                  int keys);

// The rotation of new keys, and of the queries with them.
struct Rotation {
  const Tensor& cos;
  const Tensor& sin;
  bool interleaved;
};

// Sets what the kernels of both versions call alike. The head size `d` and the number of keys
// `seqlen_k` are set before.
template <class Params>
void SetRotation(Params* params, const char* op, const Argument& q, const Rotation& rotation) {
  const Argument cos(op, "rotary_cos", rotation.cos), sin(op, "rotary_sin", rotation.sin);
  params->rotary_dim = CheckRotation(q, cos, sin, params->d, params->seqlen_k);
  params->rotary_cos_ptr = cos.tensor().data_ptr();
  params->rotary_sin_ptr = sin.tensor().data_ptr();
  params->is_rotary_interleaved = rotation.interleaved;
}

}  // namespace vllm::flash
