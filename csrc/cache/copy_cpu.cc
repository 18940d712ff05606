// SPDX-License-Identifier: Apache-2.0
// Copies whole blocks with memcpy, which needs no code for each instruction set because the C
// library selects it.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cache/cache.h"
#include "core/cpu_parallel.h"

namespace vllm {
namespace {

// The number of bytes that one thread copies at a time: large enough for memcpy to reach its full
// speed, small enough to share a single block among threads.
constexpr int64_t kSlice = 32768;
// The same if there are several blocks. A thread copies adjacent slices at once, so they may be
// small, and a block of a few tokens is still shared among threads.
constexpr int64_t kBlockSlice = 4096;

}  // namespace

void CopyBlocks(char* to, const char* from, int64_t bytes, const int64_t* pairs, int64_t count) {
  const auto copy = [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t source = pairs[2 * i] * bytes, target = pairs[2 * i + 1] * bytes;
      std::memmove(to + target + begin, from + source + begin, static_cast<size_t>(end - begin));
    }
  };
  // Each thread copies its slice of all blocks, so the order of copies is kept for each byte: a
  // block may be copied onwards or written twice. Caches that overlap with misaligned blocks would
  // mix the slices.
  const int64_t blocks = count == 0 ? 0 : *std::max_element(pairs, pairs + 2 * count) + 1;
  const bool apart = to + blocks * bytes <= from || from + blocks * bytes <= to;
  if (to != from && !apart) return copy(0, bytes);
  const int64_t slices = (bytes + kBlockSlice - 1) / kBlockSlice;
  ParallelFor(slices, std::min(bytes, kBlockSlice) * count / static_cast<int64_t>(sizeof(float)),
              [&](int64_t begin, int64_t end) {
                copy(begin * kBlockSlice, std::min(end * kBlockSlice, bytes));
              });
}

void CopyRanges(const int64_t* to, const int64_t* from, const int64_t* sizes, int64_t count) {
  // The slices of all ranges are numbered consecutively; first[i] is the number of the first slice
  // of range i.
  std::vector<int64_t> first(static_cast<size_t>(count + 1));
  for (int64_t i = 0; i < count; ++i) first[i + 1] = first[i] + (sizes[i] + kSlice - 1) / kSlice;
  const int64_t bytes =
      first[count] == 0 ? 0 : std::min(kSlice, *std::max_element(sizes, sizes + count));
  ParallelFor(
      first[count], bytes / static_cast<int64_t>(sizeof(float)), [&](int64_t begin, int64_t end) {
        int64_t range = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
        for (int64_t slice = begin; slice < end; ++slice) {
          while (slice >= first[range + 1]) ++range;
          const int64_t offset = (slice - first[range]) * kSlice;
          // The addresses are in an int64 tensor, because a schema cannot pass pointers.
          std::memcpy(reinterpret_cast<char*>(to[range]) + offset,
                      reinterpret_cast<const char*>(from[range]) + offset,
                      static_cast<size_t>(std::min(kSlice, sizes[range] - offset)));
        }
      });
}

}  // namespace vllm
