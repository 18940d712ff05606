// SPDX-License-Identifier: Apache-2.0
#include "moe/align.h"

#include <algorithm>
#include <cstdint>

#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"
#include "core/gpu/rows.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kMaxThreads = 1024;
constexpr int kBatchThreads = 256;

struct Routing {
  ExpertIds ids;
  int64_t count = 0;  // of routes
  int experts = 0;
  int expert_bits = 0;  // that tell experts apart
  const int32_t* map = nullptr;

  // Returns the local number of a route's expert, or -1.
  __device__ __forceinline__ int GetLocalExpert(int64_t route) const {
    // Routes are usually adjacent and then need no division.
    const bool flat = ids.token_stride == ids.topk * ids.choice_stride;
    const int64_t token = flat ? 0 : route / ids.topk;
    const int64_t expert = ids.Get(token, route - token * ids.topk);
    if (expert < 0 || expert >= experts) return -1;
    if (map == nullptr) return static_cast<int>(expert);
    const int local = map[expert];
    return local >= 0 && local < experts ? local : -1;
  }
};

// Returns the lanes with the same expert. All lanes of the warp must call it.
__device__ __forceinline__ uint32_t FindLanesWith(int expert, int bits) {
  uint32_t lanes = Ballot(expert >= 0);
  for (int bit = 0; bit < bits; ++bit) {
    const bool mine = (expert >> bit & 1) != 0;
    const uint32_t with = Ballot(mine);
    lanes &= mine ? with : ~with;
  }
  return lanes;
}

__device__ __forceinline__ int CountBlocks(int count, int64_t block) {
  return static_cast<int>((count + block - 1) / block);
}

// Fills the parts of the lists that belong to no expert.
__device__ __forceinline__ void FillRest(const AlignedRoutes& to, int64_t blocks, int64_t block,
                                         int none, int64_t thread, int64_t threads) {
  for (int64_t i = blocks * block + thread; i < to.sorted_size; i += threads) to.sorted[i] = none;
  for (int64_t i = blocks + thread; i < to.experts_size; i += threads) to.experts[i] = -1;
}

// A single block does everything: there are few routes, and launching several kernels would take
// longer. Each of its first `counters` warps counts the routes of a contiguous part by expert. Each
// warp then knows where its routes go, and routes keep their order.
__global__ void __launch_bounds__(kMaxThreads)
    AlignInBlock(Routing routing, AlignedRoutes to, int64_t block, int counters) {
  const int experts = routing.experts;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  int* places = GetDynamicShared<int>();  // [counters, experts]
  int* starts =
      places + counters * experts;  // of each expert, in blocks, and at the end their number
  int* totals = starts + experts + 1;
  for (int i = static_cast<int>(threadIdx.x); i < counters * experts;
       i += static_cast<int>(blockDim.x))
    places[i] = 0;
  __syncthreads();

  const int64_t each = (routing.count + counters * kWarp - 1) / (counters * kWarp) * kWarp;
  const int64_t begin = Warp() * each,
                end = Warp() >= counters ? begin : Lesser(begin + each, routing.count);
  int* mine = places + Warp() * experts;  // of a warp that counts
  for (int64_t route = begin + Lane(); route < end; route += kWarp) {
    const int expert = routing.GetLocalExpert(route);
    if (expert >= 0) atomicAdd(&mine[expert], 1);
    if (to.scatter != nullptr) to.scatter[route] = expert < 0 ? -1 : static_cast<int>(route);
  }
  __syncthreads();

  int blocks = 0;
  for (int first = 0; first < experts; first += static_cast<int>(blockDim.x)) {
    const int expert = first + static_cast<int>(threadIdx.x);
    int total = 0;
    for (int w = 0; expert < experts && w < counters; ++w) {
      const int count = places[w * experts + expert];
      places[w * experts + expert] = total;
      total += count;
    }
    const int needed = CountBlocks(total, block);
    int sum = 0;
    const int up_to = BlockInclusiveSum(needed, sum);
    if (expert < experts) {
      starts[expert] = blocks + up_to - needed;
      totals[expert] = total;
    }
    blocks += sum;
  }
  if (threadIdx.x == 0) starts[experts] = blocks;
  const int64_t room = Lesser(to.sorted_size / block, to.experts_size);
  const int64_t used = Lesser(int64_t{blocks}, room);
  if (threadIdx.x == 0) to.length[0] = static_cast<int>(used * block);
  const int none = static_cast<int>(routing.count);
  FillRest(to, used, block, none, threadIdx.x, blockDim.x);
  __syncthreads();

  for (int expert = Warp(); expert < experts; expert += warps) {
    const int64_t start = starts[expert], stop = Lesser(int64_t{starts[expert + 1]}, room);
    for (int64_t i = start + Lane(); i < stop; i += kWarp) to.experts[i] = expert;
    for (int64_t i = start * block + totals[expert] + Lane(); i < stop * block; i += kWarp)
      to.sorted[i] = none;
  }
  for (int64_t first = begin; first < end; first += kWarp) {
    const int64_t route = first + Lane();
    const int expert = route < end ? routing.GetLocalExpert(route) : -1;
    const uint32_t same = FindLanesWith(expert, routing.expert_bits);
    const int before = PopCount(same & ((1u << Lane()) - 1));
    int64_t place = 0;
    if (expert >= 0) place = int64_t{starts[expert]} * block + mine[expert] + before;
    SyncWarp();  // all have read
    if (expert >= 0) {
      if (before == 0) mine[expert] += PopCount(same);
      if (place < room * block) to.sorted[place] = static_cast<int>(route);
    }
    SyncWarp();
  }
}

// Every block computes where all experts' batches begin, and writes some of the batches.
__global__ void __launch_bounds__(kBatchThreads)
    AlignBatchesInBlocks(const int32_t* counts, int experts, int capacity, int64_t block,
                         AlignedRoutes to) {
  int* starts = GetDynamicShared<int>();  // in blocks
  const auto count_of = [&](int expert) { return Lesser(Greater(counts[expert], 0), capacity); };
  int blocks = 0;
  for (int first = 0; first < experts; first += kBatchThreads) {
    const int expert = first + static_cast<int>(threadIdx.x);
    const int needed = expert < experts ? CountBlocks(count_of(expert), block) : 0;
    int sum = 0;
    const int up_to = BlockInclusiveSum(needed, sum);
    if (expert < experts) starts[expert] = blocks + up_to - needed;
    blocks += sum;
  }
  __syncthreads();
  const int none = experts * capacity;
  for (int expert = static_cast<int>(blockIdx.x); expert < experts;
       expert += static_cast<int>(gridDim.x)) {
    const int count = count_of(expert), needed = CountBlocks(count, block);
    for (int i = static_cast<int>(threadIdx.x); i < needed; i += kBatchThreads)
      to.experts[starts[expert] + i] = expert;
    int* sorted = to.sorted + int64_t{starts[expert]} * block;
    for (int64_t i = threadIdx.x; i < needed * block; i += kBatchThreads) {
      sorted[i] = i < count ? expert * capacity + static_cast<int>(i) : none;
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) to.length[0] = static_cast<int>(blocks * block);
  FillRest(to, blocks, block, none, int64_t{blockIdx.x} * kBatchThreads + threadIdx.x,
           int64_t{gridDim.x} * kBatchThreads);
}

}  // namespace

void AlignRoutes(const std::string& op, const ExpertIds& routes, int64_t experts, int64_t block,
                 const int32_t* map, const AlignedRoutes& to) {
  Routing routing;
  routing.ids = routes;
  routing.count = routes.tokens * routes.topk;
  routing.experts = static_cast<int>(experts);
  while ((int64_t{1} << routing.expert_bits) < experts) ++routing.expert_bits;
  routing.map = map;
  constexpr int64_t kFew = 512;
  const int threads = routing.count <= kFew ? kMaxThreads / 4 : kMaxThreads;
  // The number of counting warps is as large as shared memory permits: the more warps, the shorter
  // their parts.
  const int64_t room = static_cast<int64_t>(kSharedWithoutAsking / sizeof(int)) - 2 * experts - 1;
  const int64_t counters = std::clamp<int64_t>(room / experts, 1, threads / kWarp);
  const size_t shared = static_cast<size_t>(counters * experts + 2 * experts + 1) * sizeof(int);
  Launch(op.c_str(), &AlignInBlock, dim3(1), threads, shared, routing, to, block, counters);
}

void AlignBatches(const std::string& op, const int32_t* counts, int64_t experts, int64_t capacity,
                  int64_t block, const AlignedRoutes& to) {
  const int64_t blocks = std::clamp<int64_t>(experts, 1, 2 * GetMultiprocessorCount());
  const size_t shared = static_cast<size_t>(experts) * sizeof(int);
  Launch(op.c_str(), &AlignBatchesInBlocks, dim3(static_cast<unsigned>(blocks)), kBatchThreads,
         shared, counts, experts, capacity, block, to);
}

}  // namespace vllm
