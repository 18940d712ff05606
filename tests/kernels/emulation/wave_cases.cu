// SPDX-License-Identifier: Apache-2.0
// Small kernels for tests of the emulation of AMD's waves: some use core/gpu as kernels do, and
// others do what is right for one size of wave only, or on no AMD GPU.
#include <string>

#include "core/gpu/launch.h"
#include "core/gpu/matrix.h"
#include "core/gpu/reduce.h"
#include "core/gpu/signal.h"

namespace vllm::gpu {
namespace {

constexpr int kThreads = 4 * kWarp;

// A number that is different in every thread, and bits that are different in every warp.
__device__ int NumberOf(int thread) { return thread * thread + 7; }
__device__ bool BitOf(int thread) { return (0x9e3779b97f4a7c15u >> (thread * 13 % 61) & 1u) != 0; }
__device__ uint32_t BitsOfWarp(int warp) {
  uint32_t bits = 0;
  for (int lane = 0; lane < kWarp; ++lane)
    bits |= static_cast<uint32_t>(BitOf(warp * kWarp + lane)) << lane;
  return bits;
}

__device__ bool Shuffles() {
  const int thread = static_cast<int>(threadIdx.x), first = Warp() * kWarp;
  bool right = true;
  for (int lane = 0; lane < kWarp; ++lane)
    right = Shuffle(NumberOf(thread), lane) == NumberOf(first + lane) && right;
  for (int mask = 1; mask < kWarp; ++mask)
    right = ShuffleXor(NumberOf(thread), mask) == NumberOf(first + (Lane() ^ mask)) && right;
  return right;
}

// The odd warps of a wave call it more often than the others, so that the warps are at different
// places.
__device__ bool Ballots() {
  bool right = true;
  for (int i = 0; i < 2 + Warp() % 2 * 3; ++i) {
    const bool mine = BitOf(static_cast<int>(threadIdx.x)) != (i % 2 != 0);
    const uint32_t bits = Ballot(mine);
    right = bits == (i % 2 != 0 ? ~BitsOfWarp(Warp()) : BitsOfWarp(Warp())) && right;
    right = PopCount(bits) == PopCount(BitsOfWarp(Warp()) ^ (i % 2 != 0 ? ~0u : 0u)) && right;
  }
  return right;
}

__device__ bool Reductions() {
  const int thread = static_cast<int>(threadIdx.x);
  int of_warp = 0, before = 0, all = 0;
  for (int other = 0; other < kThreads; ++other) {
    all += NumberOf(other);
    if (other / kWarp == Warp()) of_warp += NumberOf(other);
    if (other <= thread) before += NumberOf(other);
  }
  int total = 0;
  const bool right = WarpReduce(NumberOf(thread), Sum()) == of_warp &&
                     BlockReduce(NumberOf(thread), 0, Sum()) == all;
  return BlockInclusiveSum(NumberOf(thread), total) == before && total == all && right;
}

// Lanes read what other lanes of the warp wrote.
__device__ bool Syncs() {
  int* numbers = GetDynamicShared<int>() + Warp() * kWarp;
  bool right = true;
  for (int round = 0; round < 3; ++round) {
    numbers[Lane()] = NumberOf(Lane()) + round;
    SyncWarp();
    right = numbers[kWarp - 1 - Lane()] == NumberOf(kWarp - 1 - Lane()) + round && right;
    SyncWarp();
  }
  return right;
}

// A wave's product of small integers, which is exact.
__device__ bool Products() {
  const auto element = [](int line, int k) {
    return static_cast<float>((line * 5 + k * 3) % 11 - 5);
  };
  const auto other = [](int line, int k) { return static_cast<float>((line * 7 + k) % 9 - 4); };
  constexpr int kDepth = matrix::kGroups * matrix::kElements;
  matrix::Operand<Bf16> a, b;
  for (int i = 0; i < matrix::kElements; ++i) {
    const int k = matrix::Group() * matrix::kElements + i;
    a.items[i] = FromFloat<Bf16>(element(matrix::Line(), k));
    b.items[i] = FromFloat<Bf16>(other(matrix::Line(), k));
  }
  matrix::Product product = {};
  matrix::MultiplyAdd(a, b, product);
  bool right = true;
  for (int i = 0; i < matrix::kResults; ++i) {
    float want = 0;
    for (int k = 0; k < kDepth; ++k)
      want += element(matrix::GetLine(i), k) * other(matrix::Line(), k);
    right = product.items[i] == want && right;
  }
  return right;
}

// The bits of the wave instead of those of the warp.
__device__ bool BitsOfWholeWave() {
  const auto bits = static_cast<uint32_t>(__ballot(BitOf(static_cast<int>(threadIdx.x))));
  return bits == BitsOfWarp(Warp());
}

// Without a width, a lane number is one of the wave.
__device__ bool LanesOfWholeWave() {
  const int first = Warp() * kWarp;
  return __shfl(NumberOf(static_cast<int>(threadIdx.x)), 3) == NumberOf(first + 3);
}

__device__ bool Signal(bool released) {
  auto* words = GetDynamicShared<uint32_t>();
  if (released || threadIdx.x != 5) ReleaseWrites();
  __syncthreads();
  if (threadIdx.x == 0) StoreRelease(words, 17);
  __syncthreads();
  return words[0] == 17;
}

enum class Case {
  kShuffles,
  kBallots,
  kReductions,
  kSyncs,
  kProducts,
  kBitsOfWave,
  kLanesOfWave,
  kSignal,
  kUnreleased,
};
constexpr const char* kNames[] = {"shuffles",        "ballots",  "reductions",
                                  "syncs",           "products", "bits of a wave",
                                  "lanes of a wave", "signal",   "unreleased signal"};

__global__ void Run(Case which, int* right) {
  bool result = false;
  switch (which) {
    case Case::kShuffles:
      result = Shuffles();
      break;
    case Case::kBallots:
      result = Ballots();
      break;
    case Case::kReductions:
      result = Reductions();
      break;
    case Case::kSyncs:
      result = Syncs();
      break;
    case Case::kProducts:
      result = Products();
      break;
    case Case::kBitsOfWave:
      result = BitsOfWholeWave();
      break;
    case Case::kLanesOfWave:
      result = LanesOfWholeWave();
      break;
    case Case::kSignal:
      result = Signal(true);
      break;
    case Case::kUnreleased:
      result = Signal(false);
      break;
  }
  if (result) atomicAdd(right, 1);
}

}  // namespace
}  // namespace vllm::gpu

// Returns the number of lanes of a wave.
extern "C" __attribute__((visibility("default"))) int vllm_wave_lanes() {
  return vllm::gpu::emulation::kWave;
}

// Returns in how many of 256 threads the case of that name has the right result; -1 if there is no
// such case.
extern "C" __attribute__((visibility("default"))) int vllm_wave_case(const char* name) {
  using namespace vllm::gpu;
  for (size_t i = 0; i < sizeof(kNames) / sizeof(kNames[0]); ++i) {
    if (std::string(name) != kNames[i]) continue;
    int right = 0;
    // Two blocks: the second one runs its threads in reverse order.
    Launch("wave", &Run, dim3(2), kThreads, kThreads * sizeof(int), static_cast<Case>(i), &right);
    return right;
  }
  return -1;
}
