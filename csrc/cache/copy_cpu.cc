// SPDX-License-Identifier: Apache-2.0
// Copies of whole blocks. They are memcpy's, which needs no code for each instruction set: the C
// library chooses.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cache/cache.h"
#include "core/cpu_parallel.h"

namespace vllm {
namespace {

// Bytes that one thread copies at a time: large enough for memcpy to reach its speed, small enough
// to share out a single block.
constexpr int64_t kSlice = 32768;
// The same of one block of many: a thread copies slices that lie side by side at once, so they may
// be small, and a block of a few tokens is still shared out.
constexpr int64_t kBlockSlice = 4096;

}  // namespace

void CopyBlocks(char* to, const char* from, int64_t bytes, const int64_t* pairs, int64_t count) {
  const auto copy = [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t source = pairs[2 * i] * bytes, target = pairs[2 * i + 1] * bytes;
      std::memmove(to + target + begin, from + source + begin, static_cast<size_t>(end - begin));
    }
  };
  // Every thread copies its slice of all blocks, so that the order of copies holds for each byte:
  // blocks of one cache may be copied on, and one block be written twice. Caches that overlap with
  // their blocks askew would mix the slices.
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
  // Slices of all ranges, numbered through: first[i] is the number of range i's first one.
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
          // An int64 tensor holds the addresses: there is no other way to pass them through a
          // schema.
          std::memcpy(reinterpret_cast<char*>(to[range]) + offset,
                      reinterpret_cast<const char*>(from[range]) + offset,
                      static_cast<size_t>(std::min(kSlice, sizes[range] - offset)));
        }
      });
}

}  // namespace vllm
