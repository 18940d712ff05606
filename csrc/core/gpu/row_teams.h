// SPDX-License-Identifier: Apache-2.0
// Rows that threads share: a few lanes of a warp a short row, a whole block a long one. What a
// thread has loaded of a row stays in registers from pass to pass up to a length, and is read again
// beyond.
//
// A row is cut into packs of 16 bytes, and the threads of its team take them in turns. Which thread
// has which pack, and so the order of a sum over the row, depends on the width and the element type
// alone, not on alignment or on how many rows there are.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"

namespace vllm::gpu {

// Of a block that is a team, and of one whose warps have rows of their own.
inline constexpr int kMostTeamThreads = 512;
inline constexpr int kWarpTeamThreads = 128;

// kLanes: neighbouring lanes that are a team, 0 for the whole block. kHeld: packs that a thread
// keeps, 0 for none; rows that are held are aligned and not empty. kAligned: rows are whole packs,
// each at a multiple of its size; otherwise elements move one by one.
template <int kLanes_, int kHeld_, bool kAligned_>
struct RowTeam {
  static constexpr int kLanes = kLanes_;
  static constexpr int kHeld = kHeld_;
  static constexpr bool kAligned = kAligned_;
  static_assert(kAligned || kHeld == 0);
  // For __launch_bounds__: several of the largest blocks run on a multiprocessor, so that one loads
  // while another computes.
  static constexpr int kMostThreads = kLanes == 0 ? kMostTeamThreads : kWarpTeamThreads;
  static constexpr int kLeastBlocks = kLanes == 0 ? 2 : 6;

  static __device__ __forceinline__ int Threads() {
    return kLanes == 0 ? static_cast<int>(blockDim.x) : kLanes;
  }
  // Which of them this one is.
  static __device__ __forceinline__ int Thread() {
    return kLanes == 0 ? static_cast<int>(threadIdx.x) : static_cast<int>(threadIdx.x) % Threads();
  }

  // Over the team; all threads of the block take part, and every one gets the result.
  template <class Op>
  static __device__ __forceinline__ float Reduce(float value, float identity, Op op) {
    if constexpr (kLanes == 0) {
      return BlockReduce(value, identity, op);
    } else {
      return WarpReduce<kLanes>(value, op);
    }
  }
  template <class Op>
  static __device__ __forceinline__ void ReduceTwo(float& first, float& second, float identity,
                                                   Op op) {
    if constexpr (kLanes == 0) {
      BlockReduceTwo(first, second, identity, op);
    } else {
      first = WarpReduce<kLanes>(first, op);
      second = WarpReduce<kLanes>(second, op);
    }
  }
};

// Calls f(row, has_row) for the rows of this team. Without a row left a team is called with row 0
// and `has_row` false, as long as another of its block has one: it takes part in reductions, and
// does nothing else.
template <class Team, class F>
__device__ __forceinline__ void ForRows(int64_t count, F f) {
  const int teams = Team::kLanes == 0 ? 1 : static_cast<int>(blockDim.x) / Team::Threads();
  const int team = Team::kLanes == 0 ? 0 : static_cast<int>(threadIdx.x) / Team::Threads();
  for (int64_t first = int64_t{blockIdx.x} * teams; first < count;
       first += int64_t{gridDim.x} * teams) {
    const bool has_row = first + team < count;
    f(has_row ? first + team : 0, has_row);
  }
}

// Calls f(k, pack) for the packs of this thread among `packs`; k says which of those that it holds.
// Where packs are held there are few: they are numbered by int, otherwise by int64_t.
template <class Team, class F>
__device__ __forceinline__ void ForPacks(int64_t packs, F f) {
  if constexpr (Team::kHeld > 0) {
#pragma unroll
    for (int k = 0; k < Team::kHeld; ++k) {
      const int pack = Team::Thread() + k * Team::Threads();
      if (pack < static_cast<int>(packs)) f(k, pack);
    }
  } else {
    for (int64_t pack = Team::Thread(); pack < packs; pack += Team::Threads()) f(0, pack);
  }
}

template <typename T>
VLLM_HOST_DEVICE constexpr int64_t PacksOf(int64_t width) {
  return (width + kPerLoad<T> - 1) / kPerLoad<T>;
}

// Elements from i on, zeros behind the end of the row.
template <bool kAligned, int kCount, typename T>
__device__ __forceinline__ Pack<T, kCount> LoadPart(const T* row, int64_t width, int64_t i) {
  if constexpr (kAligned) {
    return LoadPack<kCount>(row + i);
  } else {
    Pack<T, kCount> pack = {};
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (i + j < width) pack.items[j] = row[i + j];
    }
    return pack;
  }
}

template <bool kAligned, typename T, int kCount>
__device__ __forceinline__ void StorePart(T* row, int64_t width, int64_t i,
                                          const Pack<T, kCount>& pack) {
  if constexpr (kAligned) {
    StorePack(row + i, pack);
  } else {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (i + j < width) row[i + j] = pack.items[j];
    }
  }
}

// What a thread has of a row, held if kHolds says so.
template <class Team, typename T, bool kHolds = (Team::kHeld > 0)>
class TeamRow {
 public:
  static constexpr int kCount = kPerLoad<T>;
  static_assert(!kHolds || Team::kHeld > 0);

  __device__ __forceinline__ TeamRow(const T* row, int64_t width) : row_(row), width_(width) {}

  // Nothing here is conditional: registers that are loaded on one way and not on another are waited
  // for where the ways meet, and this way all loads of several rows are under way at once. Threads
  // without a pack of their own load the last one.
  __device__ __forceinline__ void Load() {
    if constexpr (kHolds) {
      const int last = static_cast<int>(width_ / kCount) - 1;
#pragma unroll
      for (int k = 0; k < Team::kHeld; ++k) {
        const int pack = Team::Thread() + k * Team::Threads();
        held_[k] = ToWords<T>(
            LoadPart<Team::kAligned, kCount>(row_, width_, (pack < last ? pack : last) * kCount));
      }
    }
  }
  __device__ __forceinline__ Pack<T, kCount> Get(int k, int64_t pack) const {
    if constexpr (kHolds) {
      return FromWords<T>(held_[k]);
    } else {
      return LoadPart<Team::kAligned, kCount>(row_, width_, pack * kCount);
    }
  }
  // Another row in this one's place, which has been written to `row` already: what is not held is
  // read there.
  __device__ __forceinline__ void Set(int k, const Pack<T, kCount>& value) {
    if constexpr (kHolds) held_[k] = ToWords<T>(value);
  }
  __device__ __forceinline__ void ReadFrom(const T* row) { row_ = row; }
  // Between passes: see KeepPacked.
  __device__ __forceinline__ void KeepPacked() {
    if constexpr (kHolds) {
#pragma unroll
      for (int k = 0; k < Team::kHeld; ++k) gpu::KeepPacked(held_[k]);
    }
  }

 private:
  const T* row_;
  int64_t width_;
  Words held_[kHolds ? Team::kHeld : 1];
};

// Calls f(team, blocks, threads) with a team that fits `count` rows of `width` elements of T.
template <typename T, class F>
void WithRowTeam(int64_t count, int64_t width, bool aligned, F&& f) {
  const int64_t packs = PacksOf<T>(width);
  // The same number whether packs are held or not, for the order of sums; up to 64 packs the team
  // is no more than a warp.
  const int threads =
      packs <= 64 ? kWarp
                  : ThreadsFor(packs <= 2 * kMostTeamThreads ? (packs + 1) / 2 : (packs + 3) / 4,
                               kMostTeamThreads);
  if (!aligned || width == 0) return f(RowTeam<0, 0, false>(), BlocksFor(count, 1), threads);
  if (packs <= 16)
    return f(RowTeam<16, 1, true>(), BlocksFor(count, kWarpTeamThreads / 16), kWarpTeamThreads);
  if (packs <= 64)
    return f(RowTeam<32, 2, true>(), BlocksFor(count, kWarpTeamThreads / 32), kWarpTeamThreads);
  if (packs <= 2 * kMostTeamThreads) return f(RowTeam<0, 2, true>(), BlocksFor(count, 1), threads);
  if (packs <= 4 * kMostTeamThreads) return f(RowTeam<0, 4, true>(), BlocksFor(count, 1), threads);
  return f(RowTeam<0, 0, true>(), BlocksFor(count, 1), threads);
}

}  // namespace vllm::gpu
