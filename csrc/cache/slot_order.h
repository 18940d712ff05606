// SPDX-License-Identifier: Apache-2.0
// The order in which tokens are written into a paged cache. What is side by side in a cache belongs
// to neighbouring slots; in the order of the batch each of its lines would be fetched for one token
// and be gone again when the next one comes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vllm {

// Where one token goes.
struct Placed {
  int64_t slot = 0;
  int64_t token = 0;
};

// Neighbours in a list of placed tokens, [first, first + tokens), whose slots share a tile of the
// cache.
struct Run {
  int64_t first = 0;
  int64_t tokens = 0;
};

inline constexpr int64_t kMaxRun = 16;

// The tokens that have a slot (0 or more), in their own order. Slots are `stride` elements apart.
inline std::vector<Placed> WithSlots(const int64_t* slots, int64_t stride, int64_t tokens) {
  std::vector<Placed> placed;
  placed.reserve(static_cast<size_t>(tokens));
  for (int64_t token = 0; token < tokens; ++token) {
    if (slots[token * stride] >= 0) placed.push_back({slots[token * stride], token});
  }
  return placed;
}

// The same by slot; of tokens with equal slots the last.
inline std::vector<Placed> InOrderOfSlots(const int64_t* slots, int64_t stride, int64_t tokens) {
  std::vector<Placed> placed = WithSlots(slots, stride, tokens);
  bool ascending = true;
  int64_t least = INT64_MAX, most = -1;
  for (const Placed& p : placed) {
    ascending = ascending && p.slot > most;
    least = std::min(least, p.slot);
    most = std::max(most, p.slot);
  }
  if (ascending) return placed;
  // One pass puts them into as many buckets as there are tokens, or half of that; few of these then
  // hold more than a handful.
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

// Cuts tokens in the order of their slots into runs; tile(slot) tells the tiles apart, none of
// which has more than kMaxRun slots.
template <typename F>
std::vector<Run> RunsOf(const std::vector<Placed>& placed, const F& tile) {
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
