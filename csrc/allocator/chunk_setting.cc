// SPDX-License-Identifier: Apache-2.0
#include "allocator/chunk_setting.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>

namespace vllm::allocator {
namespace {

constexpr char kVariable[] = "VLLM_SLEEP_MEM_CHUNK_SIZE";
constexpr unsigned long long kDefault = 256;
constexpr unsigned long long kLargest = 1 << 20;

std::atomic<unsigned long long> megabytes{kDefault};

}  // namespace

bool ReadChunkSetting(Error* error) {
  const char* text = std::getenv(kVariable);
  unsigned long long value = kDefault;
  if (text != nullptr && *text != '\0') {
    char* end = nullptr;
    errno = 0;
    // Upstream also accepts hexadecimal and octal numbers.
    value = std::strtoull(text, &end, 0);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < 1 || value > kLargest) {
      return error->Set(Error::Kind::kFailed,
                        "%s is '%.40s', expected a whole number of MiB from 1 to %llu", kVariable,
                        text, kLargest);
    }
  }
  megabytes.store(value, std::memory_order_relaxed);
  return true;
}

size_t GetChunkSetting() {
  return static_cast<size_t>(megabytes.load(std::memory_order_relaxed)) << 20;
}

}  // namespace vllm::allocator
