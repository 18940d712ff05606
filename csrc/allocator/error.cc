// SPDX-License-Identifier: Apache-2.0
#include "allocator/error.h"

#include <cstdarg>
#include <cstdio>

namespace vllm::allocator {

bool Error::Set(Kind what, const char* format, ...) {
  kind = what;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return false;
}

}  // namespace vllm::allocator
