// SPDX-License-Identifier: Apache-2.0
// Sorts tokens into the order in which they are written to a paged cache. Neighbouring slots share
// cache lines; in the order of the batch, each line would be fetched for one token and be evicted
// before the next one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vllm {

// A token and its slot.
struct Placed {
  int64_t slot = 0;
  int64_t token = 0;
};

// Consecutive entries [first, first + tokens) of a list of placed tokens whose slots share a tile
// of the cache.
struct Run {
  int64_t first = 0;
  int64_t tokens = 0;
};

inline constexpr int64_t kMaxRun = 16;

// Returns the tokens that have a slot (0 or more), in their own order. Slots are `stride` elements
// apart.
inline std::vector<Placed> SelectTokensWithSlots(const int64_t* slots, int64_t stride,
                                                 int64_t tokens) {
  std::vector<Placed> placed;
  placed.reserve(static_cast<size_t>(tokens));
  for (int64_t token = 0; token < tokens; ++token) {
    if (slots[token * stride] >= 0) placed.push_back({slots[token * stride], token});
  }
  return placed;
}

// Returns the same sorted by slot. If tokens share a slot, only the last one is kept.
inline std::vector<Placed> SortBySlot(const int64_t* slots, int64_t stride, int64_t tokens) {
  std::vector<Placed> placed = SelectTokensWithSlots(slots, stride, tokens);
  bool ascending = true;
  int64_t least = INT64_MAX, most = -1;
  for (const Placed& p : placed) {
    ascending = ascending && p.slot > most;
    least = std::min(least, p.slot);
    most = std::max(most, p.slot);
  }
  if (ascending) return placed;
  // One pass distributes the tokens to as many buckets as there are tokens, or half as many; few of
  // these hold more than a handful.
  int shift = 0;
  while ((most - least) >> shift >= static_cast<int64_t>(placed.size())) ++shift;
  const auto bucket = [&](const Placed& p) {
    return static_cast<size_t>((p.slot - least) >> shift);
  };
  std::vector<size_t> ends(static_cast<size_t>((most - least) >> shift) + 2);
  for (const Placed& p : placed) ++ends[bucket(p) + 1];
  for (size_t i = 1; i < ends.size(); ++i) ends[i] += ends[i - 1];
  std::vector<Placed> sorted(placed.size());
  for (const Placed& p : placed) sorted[ends[bucket(p)]++] = p;
  size_t begin = 0;
  for (const size_t end : ends) {
    std::sort(sorted.begin() + static_cast<int64_t>(begin),
              sorted.begin() + static_cast<int64_t>(end), [](const Placed& a, const Placed& b) {
                return a.slot != b.slot ? a.slot < b.slot : a.token < b.token;
              });
    begin = end;
  }
  size_t kept = 0;
  for (const Placed& p : sorted) {
    if (kept != 0 && sorted[kept - 1].slot == p.slot) --kept;
    sorted[kept++] = p;
  }
  sorted.resize(kept);
  return sorted;
}

// Cuts tokens sorted by slot into runs. tile(slot) identifies a tile; no tile has more than kMaxRun
// slots.
template <typename F>
std::vector<Run> CutIntoRuns(const std::vector<Placed>& placed, const F& tile) {
  std::vector<Run> runs;
  runs.reserve(placed.size());
  int64_t last = -1;
  for (size_t i = 0; i < placed.size(); ++i) {
    const int64_t mine = tile(placed[i].slot);
    if (runs.empty() || mine != last) runs.push_back({static_cast<int64_t>(i), 0});
    ++runs.back().tokens;
    last = mine;
  }
  return runs;
}

}  // namespace vllm
