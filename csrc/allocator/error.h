// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace vllm::allocator {

// Why a step failed. The text has a fixed place: an allocator that has just run out of memory does
// not ask for some to say so.
struct Error {
  enum class Kind {
    kFailed,
    kOutOfMemory,  // of the device; torch has an answer of its own to that
    kEnded,  // the driver has shut down with the process: nothing is left that could be cleaned up
  };

  Kind kind = Kind::kFailed;
  char text[512] = "";

  // Sets both; returns false, which is what its caller returns.
  bool Set(Kind what, const char* format, ...) __attribute__((format(printf, 3, 4)));
};

}  // namespace vllm::allocator
