// SPDX-License-Identifier: Apache-2.0
#include "core/cache_sizes.h"

#include <unistd.h>

#include <algorithm>

namespace vllm {
namespace {

constexpr size_t kKiB = 1024;

// Returns the answer of sysconf in whole KiB, within limits that guard against wrong answers.
size_t Ask([[maybe_unused]] int name, size_t common, size_t least, size_t most) {
  const long answer = sysconf(name);
  if (answer <= 0) return common;
  return std::clamp(static_cast<size_t>(answer), least, most);
}

CacheSizes FindCacheSizes() {
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
  return {Ask(_SC_LEVEL1_DCACHE_SIZE, 32 * kKiB, 16 * kKiB, 256 * kKiB),
          Ask(_SC_LEVEL2_CACHE_SIZE, 512 * kKiB, 256 * kKiB, 4096 * kKiB)};
#else
  return {32 * kKiB, 512 * kKiB};
#endif
}

}  // namespace

const CacheSizes& GetCacheSizes() {
  static const CacheSizes sizes = FindCacheSizes();
  return sizes;
}

}  // namespace vllm
