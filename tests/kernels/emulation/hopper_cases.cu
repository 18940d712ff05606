// SPDX-License-Identifier: Apache-2.0
// Small kernels for tests of the emulation itself: one keeps the rules of core/gpu/hopper.h and
// wgmma.h, and each of the others breaks one rule.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/gpu/launch.h"
#include "core/gpu/types.h"
#include "core/gpu/wgmma.h"

namespace vllm::gpu {
namespace {

enum class Break {
  kNothing,
  kAsyncFence,
  kProductFence,
  kWait,
  kCommit,
  kAlignment,
  kSwizzle,
  kBarrierInit,
  kArrival,
  kParity,
  kCopiesLeft,
  kReuse,
};
constexpr const char* kNames[] = {"nothing", "async fence", "product fence", "wait",
                                  "commit",  "alignment",   "swizzle",       "barrier init",
                                  "arrival", "parity",      "copies left",   "reuse"};

constexpr int kRows = 64, kColumns = 64, kDepth = 64, kBlock = 64 * 128;
constexpr size_t kShared = 1024 + 2 * kBlock + 64;

// result = A B of 64 x 64 x 64, with B as stored if `across`, else its transpose. There are two
// warpgroups: one copies, one multiplies.
template <Rows128 kB>
__global__ void Multiply(const Bf16* a, const Bf16* b, float* result, Break broken) {
  auto* memory = GetDynamicShared<unsigned char>();
  const uint32_t begin = GetSharedAddress(memory);
  const uint32_t tile = broken == Break::kAlignment ? begin : (begin + 1023) / 1024 * 1024;
  const uint32_t full = tile + 2 * kBlock, empty = full + 8;
  if (threadIdx.x == 0) {
    if (broken != Break::kBarrierInit) InitBarrier(full, kWarpgroup);
    InitBarrier(empty, kWarpgroup);
  }
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  if (threadIdx.x >= kWarpgroup) {
    for (int piece = thread; piece < 2 * 64 * 8; piece += kWarpgroup) {
      const int row = piece / 8 % 64, matrix = piece / (8 * 64);
      const uint32_t offset = broken == Break::kSwizzle
                                  ? static_cast<uint32_t>(row * 128 + piece % 8 * 16)
                                  : GetSwizzledOffset(row, piece % 8);
      CopyRow16(tile + static_cast<uint32_t>(matrix * kBlock) + offset,
                (matrix == 0 ? a : b) + row * 64 + piece % 8 * 8, true);
    }
    if (broken != Break::kArrival || thread != 5) ArriveWhenCopied(full);
    if (broken != Break::kReuse) WaitForBarrier(empty, 0);
    // The next contents of the buffer.
    if (broken == Break::kReuse) WaitForBarrier(full, 0);
    for (int piece = thread; piece < 64 * 8; piece += kWarpgroup)
      CopyRow16(tile + static_cast<uint32_t>(piece * 16), nullptr, false);
    if (broken != Break::kCopiesLeft) WaitForCopies();
    if (broken == Break::kReuse) {
      FenceAsyncProxy();
      ArriveOnBarrier(empty);
    }
    return;
  }
  WaitForBarrier(full, broken == Break::kParity ? 1 : 0);
  if (broken != Break::kAsyncFence) FenceAsyncProxy();
  float sums[kColumns / 2];
  for (float& sum : sums) sum = 0;
  if (broken != Break::kProductFence) FenceProducts();
  for (int k = 0; k < kDepth / 16; ++k) {
    const uint64_t left = MakeSwizzledDescriptor(tile + static_cast<uint32_t>(k * 32), 1024);
    const uint32_t right =
        tile + kBlock + static_cast<uint32_t>(k * (kB == Rows128::kAcross ? 16 * 128 : 32));
    AddProduct<Bf16, kB>(sums, left, MakeSwizzledDescriptor(right, 1024, kBlock), true);
  }
  if (broken == Break::kReuse) WaitForBarrier(empty, 0);
  if (broken != Break::kCommit) CommitProducts();
  if (broken != Break::kWait) WaitForProducts(sums);
  if (broken != Break::kReuse) ArriveOnBarrier(empty);
  for (int i = 0; i < kColumns / 2; ++i)
    result[GetAccumulatorRow(i) * kColumns + GetAccumulatorColumn(i)] = sums[i];
}

template <Rows128 kB>
bool IsRight(Break broken) {
  std::vector<Bf16> a(kRows * kDepth), b(kDepth * kColumns);
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = FromFloat<Bf16>(static_cast<float>(static_cast<int>(i * 37 % 101) - 50));
  for (size_t i = 0; i < b.size(); ++i)
    b[i] = FromFloat<Bf16>(static_cast<float>(static_cast<int>(i * 53 % 89) - 44));
  std::vector<float> result(kRows * kColumns);
  Launch("multiply", &Multiply<kB>, dim3(1), 2 * kWarpgroup, kShared, a.data(), b.data(),
         result.data(), broken);
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      float want = 0;  // a sum of integers, so exact
      for (int k = 0; k < kDepth; ++k) {
        const int at = kB == Rows128::kAcross ? k * kColumns + column : column * kDepth + k;
        want +=
            ToFloat(a[static_cast<size_t>(row * kDepth + k)]) * ToFloat(b[static_cast<size_t>(at)]);
      }
      if (result[static_cast<size_t>(row * kColumns + column)] != want) return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace vllm::gpu

// Returns whether both layouts of B give the right result if the rule of that name is broken; -1 if
// there is no such rule. Most broken rules end the process.
extern "C" __attribute__((visibility("default"))) int vllm_hopper_case(const char* name) {
  using namespace vllm::gpu;
  for (size_t i = 0; i < sizeof(kNames) / sizeof(kNames[0]); ++i) {
    const auto broken = static_cast<Break>(i);
    if (std::string(name) == kNames[i])
      return IsRight<Rows128::kAlongSum>(broken) && IsRight<Rows128::kAcross>(broken) ? 1 : 0;
  }
  return -1;
}
