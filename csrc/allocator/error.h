// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace vllm::allocator {

// The reason why a step failed. The text is stored in a fixed buffer, because an allocator that has
// just run out of memory must not allocate memory to report it.
struct Error {
  enum class Kind {
    kFailed,
    kOutOfMemory,  // no device memory is left; torch handles this itself
    kEnded,        // the driver has shut down with the process: nothing is left to clean up
  };

  Kind kind = Kind::kFailed;
  char text[512] = "";

  // Sets the kind and the text. Returns false, so that a caller can return the result.
  bool Set(Kind what, const char* format, ...) __attribute__((format(printf, 3, 4)));
};

}  // namespace vllm::allocator
