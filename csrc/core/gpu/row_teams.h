// SPDX-License-Identifier: Apache-2.0
// Rows that threads share: a few lanes of a warp process a short row, a whole block a long one. Up
// to a certain length, a thread keeps its part of a row in registers from pass to pass; it reads
// longer rows again.
//
// A row is cut into packs of 16 bytes, which the threads of its team take in turns. The assignment
// of packs to threads, and so the order of a sum over the row, depends only on the width and the
// element type, not on alignment or the number of rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"

namespace vllm::gpu {

// Threads of a block that is one team, and of a block whose warps have rows of their own.
inline constexpr int kMostTeamThreads = 512;
inline constexpr int kWarpTeamThreads = 128;

// kLanes: the number of adjacent lanes that form a team; 0 for the whole block. kHeld: the number
// of packs that a thread keeps in registers; 0 for none; rows that are kept are aligned and not
// empty. kAligned: rows are whole packs, each at a multiple of its size; otherwise elements are
// read one by one.
template <int kLanes_, int kHeld_, bool kAligned_>
struct RowTeam {
  static constexpr int kLanes = kLanes_;
  static constexpr int kHeld = kHeld_;
  static constexpr bool kAligned = kAligned_;
  static_assert(kAligned || kHeld == 0);
  // For __launch_bounds__: several blocks of the maximum size fit on a multiprocessor, so that one
  // loads while another computes.
  static constexpr int kMostThreads = kLanes == 0 ? kMostTeamThreads : kWarpTeamThreads;
  static constexpr int kLeastBlocks = kLanes == 0 ? 2 : 6;

  static __device__ __forceinline__ int Threads() {
    return kLanes == 0 ? static_cast<int>(blockDim.x) : kLanes;
  }
  // Returns this thread's number in its team.
  static __device__ __forceinline__ int Thread() {
    return kLanes == 0 ? static_cast<int>(threadIdx.x) : static_cast<int>(threadIdx.x) % Threads();
  }

  // Reduces over the team. All threads of the block take part, and every one gets the result.
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

// Calls f(row, has_row) for the rows of this team. While another team of the block still has a row,
// a team without one is called with row 0 and `has_row` false: it takes part in reductions and does
// nothing else.
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

// Calls f(k, pack) for the packs of this thread among `packs`, where k is the index among the packs
// that the thread keeps. If packs are kept, there are few and their type is int; otherwise it is
// int64_t.
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
VLLM_HOST_DEVICE constexpr int64_t CountPacks(int64_t width) {
  return (width + kPerLoad<T> - 1) / kPerLoad<T>;
}

// Loads elements from i on, with zeros after the end of the row.
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

// A thread's part of a row. It is kept in registers if kHolds is set.
template <class Team, typename T, bool kHolds = (Team::kHeld > 0)>
class TeamRow {
 public:
  static constexpr int kCount = kPerLoad<T>;
  static_assert(!kHolds || Team::kHeld > 0);

  __device__ __forceinline__ TeamRow(const T* row, int64_t width) : row_(row), width_(width) {}

  // There are no conditions here. Registers that are loaded on one path only must be waited for
  // where the paths join; without conditions, all loads of several rows are in flight at once.
  // Threads without a pack load the last one.
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
  // Replaces the row by another one, which has already been written to `row`: a thread that keeps
  // nothing reads it there.
  __device__ __forceinline__ void Set(int k, const Pack<T, kCount>& value) {
    if constexpr (kHolds) held_[k] = ToWords<T>(value);
  }
  __device__ __forceinline__ void ReadFrom(const T* row) { row_ = row; }
  // For use between passes: see KeepPacked.
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
  const int64_t packs = CountPacks<T>(width);
  // The number is the same whether packs are kept or not, because it determines the order of sums.
  // Up to 64 packs, a team is at most a warp.
  const int threads =
      packs <= 64 ? kWarp
                  : ChooseThreads(packs <= 2 * kMostTeamThreads ? (packs + 1) / 2 : (packs + 3) / 4,
                                  kMostTeamThreads);
  if (!aligned || width == 0) return f(RowTeam<0, 0, false>(), ChooseBlocks(count, 1), threads);
  if (packs <= 16)
    return f(RowTeam<16, 1, true>(), ChooseBlocks(count, kWarpTeamThreads / 16), kWarpTeamThreads);
  if (packs <= 64)
    return f(RowTeam<32, 2, true>(), ChooseBlocks(count, kWarpTeamThreads / 32), kWarpTeamThreads);
  if (packs <= 2 * kMostTeamThreads)
    return f(RowTeam<0, 2, true>(), ChooseBlocks(count, 1), threads);
  if (packs <= 4 * kMostTeamThreads)
    return f(RowTeam<0, 4, true>(), ChooseBlocks(count, 1), threads);
  return f(RowTeam<0, 0, true>(), ChooseBlocks(count, 1), threads);
}

}  // namespace vllm::gpu
