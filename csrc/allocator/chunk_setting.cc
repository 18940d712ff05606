// SPDX-License-Identifier: Apache-2.0
#include "allocator/chunk_setting.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace vllm::allocator {
namespace {

constexpr char kVariable[] = "VLLM_SLEEP_MEM_CHUNK_SIZE";
constexpr char kSpace[] = " \t\r\n";
constexpr unsigned long long kDefault = 256;
constexpr unsigned long long kLargest = 1 << 20;

std::atomic<unsigned long long> megabytes{kDefault};

}  // namespace

bool ReadChunkSetting(Error* error) {
  const char* text = std::getenv(kVariable);
  const char* start = text == nullptr ? "" : text + std::strspn(text, kSpace);
  unsigned long long value = kDefault;
  if (*start != '\0') {
    const int base = start[0] == '0' && (start[1] == 'x' || start[1] == 'X') ? 16 : 10;
    char* end = nullptr;
    errno = 0;
    value = std::strtoull(start, &end, base);
    end += std::strspn(end, kSpace);
    if (*start < '0' || *start > '9' || *end != '\0' || errno != 0 || value < 1 ||
        value > kLargest) {
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
