// SPDX-License-Identifier: Apache-2.0
// Copies whole blocks with the toolkit's functions: they determine where addresses are, and run
// concurrently with kernels.
#include "cache/cache.h"
#include "core/gpu/launch.h"

namespace vllm {

void CopyBlocks(char* to, const char* from, int64_t bytes, const int64_t* pairs, int64_t count) {
  for (int64_t i = 0; i < count;) {
    // Merges blocks that are adjacent on both sides into one copy, because each copy costs the host
    // microseconds, unless one of the merged blocks writes what a later one reads.
    const char* source = from + pairs[2 * i] * bytes;
    char* target = to + pairs[2 * i + 1] * bytes;
    const int64_t gap = target < source ? source - target : target - source;
    int64_t run = 1;
    while (i + run < count && pairs[2 * (i + run)] == pairs[2 * i] + run &&
           pairs[2 * (i + run) + 1] == pairs[2 * i + 1] + run && (run + 1) * bytes <= gap) {
      ++run;
    }
    gpu::CopyAsync(target, source, static_cast<size_t>(run * bytes));
    i += run;
  }
}

void CopyRanges(const int64_t* to, const int64_t* from, const int64_t* sizes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    // The addresses are in an int64 tensor, because a schema cannot pass pointers.
    if (sizes[i] > 0)
      gpu::CopyAsync(reinterpret_cast<void*>(to[i]), reinterpret_cast<const void*>(from[i]),
                     static_cast<size_t>(sizes[i]));
  }
}

}  // namespace vllm
