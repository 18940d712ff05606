// SPDX-License-Identifier: Apache-2.0
// Three warpgroups form a thread block. It computes kTileRows rows of queries against the pages of
// its items, one page after the other:
//
//   the loader    copies pages alternately into two buffers, and copies queries
//   the scorer    computes scores and weights, and the left half of the values' columns
//   the third     computes the right half with the weights that the scorer leaves in shared memory
//
// Shared memory holds the queries, two pages and little else. The weights of a page overwrite its
// last 64 columns, which are not values. Softmax is computed page by page in powers of 2 (Milakov
// and Gimelshein, "Online normalizer calculation for softmax", 2018).
//
// Pages are loaded by cp.async, not by TMA. Rows after the end of a sequence must be zeros, because
// a weight of 0 times their contents may be NaN; cp.async can fill them with zeros while it copies.
// It also needs no tensor map, so caches can have any strides. The loader has its own warpgroup and
// always has a page of 72 KiB in flight, so no other warpgroup waits for its address computations.
#include <cmath>

#include "attention/flashmla/items.h"
#include "core/extremes.h"
#include "core/gpu/hopper.h"
#include "core/gpu/launch.h"
#include "core/gpu/stream.h"
#include "core/gpu/types.h"
#include "core/gpu/wgmma.h"

namespace vllm::flashmla {
namespace {

using namespace gpu;

constexpr int kThreads = 3 * kWarpgroup;
constexpr int kLoaderRegisters = 40, kComputeRegisters = 232;
static_assert((kLoaderRegisters + 2 * kComputeRegisters) * kWarpgroup <= 65536);

// A tile of 64 rows consists of blocks of 64 columns. Each block has 64 rows of 128 bytes, whose
// 16-byte pieces are swizzled.
constexpr int kBlockColumns = 64, kBlockBytes = kTileRows * 128, kGroupBytes = 8 * 128;
constexpr int kBlocks = kWidth / kBlockColumns, kWeightsBlock = kValueWidth / kBlockColumns;
constexpr int kTileBytes = kBlocks * kBlockBytes;
constexpr int kDepth = 16;  // summed dimension of a product
constexpr int kHalf = kValueWidth / 2;
static_assert(kTileRows == 64 && kPageRows == 64 && kBlocks == 9);

constexpr int kStages = 2;
constexpr uint32_t kAlignment = 1024;  // of blocks: the swizzle derives rows from addresses

struct Exchange {
  float factors[kStages][kTileRows];  // factors of the sums so far
  float shares[2][kTileRows];         // factors at the end, alternating between items
  uint64_t full[kStages], empty[kStages], weights[kStages], queries_full, queries_empty;
};
constexpr size_t kSharedBytes = (1 + kStages) * kTileBytes + sizeof(Exchange) + kAlignment;
static_assert(kSharedBytes <= 227 * 1024);

constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;

struct Shared {
  uint32_t queries;
  Exchange* exchange;

  __device__ __forceinline__ uint32_t page(int stage) const {
    return queries + static_cast<uint32_t>((1 + stage) * kTileBytes);
  }
  __device__ __forceinline__ uint32_t full(int stage) const {
    return GetSharedAddress(&exchange->full[stage]);
  }
  __device__ __forceinline__ uint32_t empty(int stage) const {
    return GetSharedAddress(&exchange->empty[stage]);
  }
  __device__ __forceinline__ uint32_t weights(int stage) const {
    return GetSharedAddress(&exchange->weights[stage]);
  }
  __device__ __forceinline__ uint32_t queries_full() const {
    return GetSharedAddress(&exchange->queries_full);
  }
  __device__ __forceinline__ uint32_t queries_empty() const {
    return GetSharedAddress(&exchange->queries_empty);
  }
};

// The buffer of a page and the buffer's round; the same in all three warpgroups.
struct Step {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Advance() {
    stage ^= 1;
    parity ^= stage == 0 ? 1u : 0u;
  }
};

__device__ __forceinline__ void ArriveAsWarp(uint32_t barrier) {
  SyncWarp();
  if (Lane() == 0) ArriveOnBarrier(barrier);
}

// A thread copies the same 16-byte piece of kLoaderRows rows of every block.
constexpr int kPieces = 8, kLoaderStride = kWarpgroup / kPieces,
              kLoaderRows = kTileRows / kLoaderStride;

template <typename T>
__device__ __forceinline__ void LoadRow(uint32_t to, const T* from, bool valid) {
#pragma unroll
  for (int block = 0; block < kBlocks; ++block)
    CopyRow16(to + block * kBlockBytes, from + block * kBlockColumns, valid);
}

template <typename T>
__device__ __forceinline__ void RunLoader(const DenseDecode& decode, const Shared& shared,
                                          int tile) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, first_row = thread / kPieces,
            piece = thread % kPieces;
  const uint32_t offset = GetSwizzledOffset(first_row, piece);
  constexpr uint32_t kNextRow = kLoaderStride * 128;  // the swizzle repeats every eight rows
  const T* cache = static_cast<const T*>(decode.cache);
  Step step;
  uint32_t queries_parity = 0;
  Items items(decode, static_cast<int>(blockIdx.y));
  for (Item item; items.Next(item);) {
    if (item.first == item.last) continue;
    WaitForBarrier(shared.queries_empty(), queries_parity ^ 1);
    queries_parity ^= 1;
    const T* queries =
        static_cast<const T*>(decode.q) + int64_t{item.sequence} * decode.q_strides[0];
#pragma unroll 1
    for (int i = 0; i < kLoaderRows; ++i) {
      const int row = tile * kTileRows + first_row + i * kLoaderStride;
      const bool valid = row < decode.queries * decode.heads;
      const int64_t begin = row / decode.heads * decode.q_strides[1] +
                            row % decode.heads * decode.q_strides[2] + piece * 8;
      LoadRow(shared.queries + offset + i * kNextRow,
              valid ? queries + begin : static_cast<const T*>(decode.q), valid);
    }
    ArriveWhenCopied(shared.queries_full());
    const int32_t* table = decode.table + item.sequence * decode.table_stride;
    int number = table[item.first];
#pragma unroll 1
    for (int page = item.first; page < item.last; ++page) {
      const int next = page + 1 < item.last ? table[page + 1] : 0;
      const bool exists = number >= 0 && number < decode.pages;
      const T* from = cache + (exists ? number * decode.page_stride : 0) +
                      first_row * decode.row_stride + piece * 8;
      const int rows = exists ? item.length - page * kPageRows : 0;
      WaitForBarrier(shared.empty(step.stage), step.parity ^ 1);
#pragma unroll
      for (int i = 0; i < kLoaderRows; ++i) {
        const bool valid = first_row + i * kLoaderStride < rows;
        LoadRow(shared.page(step.stage) + offset + i * kNextRow,
                valid ? from + i * kLoaderStride * decode.row_stride : cache, valid);
      }
      ArriveWhenCopied(shared.full(step.stage));
      step.Advance();
      number = next;
    }
  }
  WaitForCopies();
}

// sums += weights * values, for the columns from kHalf * half on.
template <typename T>
__device__ __forceinline__ void AddValues(float (&sums)[kHalf / 2], uint32_t page, int half) {
  FenceProducts();
  const uint32_t values = page + half * (kHalf / kBlockColumns) * kBlockBytes;
#pragma unroll
  for (int k = 0; k < kPageRows / kDepth; ++k) {
    const uint64_t a =
        MakeSwizzledDescriptor(page + kWeightsBlock * kBlockBytes + k * kDepth * 2, kGroupBytes);
    const uint64_t b = MakeSwizzledDescriptor(values + k * kDepth * 128, kGroupBytes, kBlockBytes);
    AddProduct<T, Rows128::kAcross>(sums, a, b, true);
  }
  CommitProducts();
  WaitForProducts(sums);
}

// Multiplies the sums of this thread's two rows by their factors.
template <int kCount>
__device__ __forceinline__ void Multiply(float (&sums)[kCount], float upper, float lower) {
  // For most pages, no score exceeds the largest one so far.
  if (Ballot(upper != 1.0f || lower != 1.0f) == 0) return;
#pragma unroll
  for (int i = 0; i < kCount; ++i) sums[i] *= i / 2 % 2 == 0 ? upper : lower;
}

// Writes the columns from kHalf * half on of this thread's two rows.
template <typename T>
__device__ __forceinline__ void StoreValues(const DenseDecode& decode, const Item& item,
                                            const float (&sums)[kHalf / 2], int tile, int half) {
  const int rows = decode.queries * decode.heads;
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    const int row = tile * kTileRows + GetAccumulatorRow(2 * lower);
    if (row >= rows) continue;
    const int64_t at = (item.piece < 0 ? int64_t{item.sequence} : item.piece) * rows + row;
    const int64_t begin = at * kValueWidth + half * kHalf + GetAccumulatorColumn(0);
#pragma unroll
    for (int group = 0; group < kHalf / 8; ++group) {
      const float pair[2] = {sums[group * 4 + lower * 2], sums[group * 4 + lower * 2 + 1]};
      if (item.piece < 0) {
        StorePack(static_cast<T*>(decode.out) + begin + group * 8, FromFloats<T>(pair));
      } else {
        StorePack(decode.piece_out + begin + group * 8, FromFloats<float>(pair));
      }
    }
  }
}

// The number of keys that each of this thread's two rows sees.
struct VisibleRange {
  int keys[2];

  __device__ __forceinline__ VisibleRange(const DenseDecode& decode, const Item& item, int tile) {
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const int query = (tile * kTileRows + GetAccumulatorRow(2 * lower)) / decode.heads;
      keys[lower] = decode.causal ? item.length - (decode.queries - 1 - query) : item.length;
    }
  }
};

// Computes the scores of a page in base 2; -infinity for keys that are not visible.
template <typename T>
__device__ __forceinline__ void ComputeScores(float (&scores)[32], const Shared& shared,
                                              uint32_t page) {
  FenceProducts();
#pragma unroll
  for (int k = 0; k < kWidth / kDepth; ++k) {
    const uint32_t at = k * kDepth / kBlockColumns * kBlockBytes + k * kDepth % kBlockColumns * 2;
    AddProduct<T, Rows128::kAlongSum>(scores,
                                      MakeSwizzledDescriptor(shared.queries + at, kGroupBytes),
                                      MakeSwizzledDescriptor(page + at, kGroupBytes), k > 0);
  }
  CommitProducts();
  WaitForProducts(scores);
}

template <typename T>
__device__ __forceinline__ void StoreWeights(const float (&weights)[32], uint32_t block) {
#pragma unroll
  for (int i = 0; i < 32; i += 2) {
    const float pair[2] = {weights[i], weights[i + 1]};
    const Pack<T, 2> rounded = FromFloats<T>(pair);
    const uint32_t both = rounded.items[0].code | static_cast<uint32_t>(rounded.items[1].code)
                                                      << 16;
    StoreShared(block + GetSwizzledOffset(GetAccumulatorRow(i), i / 4) + Lane() % 4 * 4, both);
  }
}

template <typename T>
__device__ __forceinline__ void RunScorer(const DenseDecode& decode, const Shared& shared,
                                          int tile) {
  const float scale = decode.scale * kLog2E;
  const int rows = decode.queries * decode.heads;
  Step step;
  uint32_t queries_parity = 0;
  int turn = 0;
  Items items(decode, static_cast<int>(blockIdx.y));
  for (Item item; items.Next(item); turn ^= 1) {
    float sums[kHalf / 2] = {}, maximum[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    const VisibleRange sight(decode, item, tile);
    if (item.first < item.last) {
      WaitForBarrier(shared.queries_full(), queries_parity);
      queries_parity ^= 1;
    }
#pragma unroll 1
    for (int page = item.first; page < item.last; ++page) {
      const uint32_t address = shared.page(step.stage);
      WaitForBarrier(shared.full(step.stage), step.parity);
      FenceAsyncProxy();
      float scores[32];
      ComputeScores<T>(scores, shared, address);
      if (page + 1 == item.last) ArriveAsWarp(shared.queries_empty());

      float factor[2];
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        const int seen = sight.keys[lower] - page * kPageRows;
        float largest = maximum[lower];
#pragma unroll
        for (int i = 2 * lower; i < 32; i += i % 2 == 0 ? 1 : 3) {
          scores[i] = GetAccumulatorColumn(i) < seen ? scores[i] * scale : -INFINITY;
          largest = LargerNumber(scores[i], largest);
        }
        largest = LargerNumber(ShuffleXor(largest, 1), largest);
        largest = LargerNumber(ShuffleXor(largest, 2), largest);
        const float base = largest == -INFINITY ? 0.0f : largest;
        factor[lower] = Exp2(maximum[lower] - base);
        maximum[lower] = largest;
        float sum = 0;
#pragma unroll
        for (int i = 2 * lower; i < 32; i += i % 2 == 0 ? 1 : 3) {
          scores[i] = Exp2(scores[i] - base);
          sum += scores[i];
        }
        total[lower] = fmaf(total[lower], factor[lower], sum);
        if (Lane() % 4 == 0)
          shared.exchange->factors[step.stage][GetAccumulatorRow(2 * lower)] = factor[lower];
      }
      // All threads of this warpgroup have read the columns that the weights overwrite.
      WaitAtNamedBarrier<1, kWarpgroup>();
      StoreWeights<T>(scores, address + kWeightsBlock * kBlockBytes);
      FenceAsyncProxy();
      ArriveAsWarp(shared.weights(step.stage));
      Multiply(sums, factor[0], factor[1]);
      WaitForBarrier(shared.weights(step.stage), step.parity);
      AddValues<T>(sums, address, 0);
      ArriveAsWarp(shared.empty(step.stage));
      step.Advance();
    }
    float shares[2];
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      total[lower] += ShuffleXor(total[lower], 1);
      total[lower] += ShuffleXor(total[lower], 2);
      shares[lower] = total[lower] == 0.0f ? 0.0f : 1.0f / total[lower];
      const int row_here = GetAccumulatorRow(2 * lower), row = tile * kTileRows + row_here;
      if (Lane() % 4 == 0) shared.exchange->shares[turn][row_here] = shares[lower];
      if (Lane() % 4 == 0 && row < rows) {
        const float lse = maximum[lower] + log2f(total[lower]);
        if (item.piece >= 0) {
          decode.piece_lse[item.piece * rows + row] = total[lower] == 0.0f ? -INFINITY : lse;
        } else {
          const int64_t head = int64_t{item.sequence} * decode.heads + row % decode.heads;
          decode.lse[head * decode.queries + row / decode.heads] =
              total[lower] == 0.0f ? INFINITY : lse * kLn2;
        }
      }
    }
    WaitAtNamedBarrier<2, 2 * kWarpgroup>();
    Multiply(sums, shares[0], shares[1]);
    StoreValues<T>(decode, item, sums, tile, 0);
  }
}

template <typename T>
__device__ __forceinline__ void RunSecondHalf(const DenseDecode& decode, const Shared& shared,
                                              int tile) {
  Step step;
  int turn = 0;
  Items items(decode, static_cast<int>(blockIdx.y));
  for (Item item; items.Next(item); turn ^= 1) {
    float sums[kHalf / 2] = {};
#pragma unroll 1
    for (int page = item.first; page < item.last; ++page) {
      WaitForBarrier(shared.full(step.stage), step.parity);
      WaitForBarrier(shared.weights(step.stage), step.parity);
      FenceAsyncProxy();
      const float* factors = shared.exchange->factors[step.stage];
      Multiply(sums, factors[GetAccumulatorRow(0)], factors[GetAccumulatorRow(2)]);
      AddValues<T>(sums, shared.page(step.stage), 1);
      ArriveAsWarp(shared.empty(step.stage));
      step.Advance();
    }
    WaitAtNamedBarrier<2, 2 * kWarpgroup>();
    const float* shares = shared.exchange->shares[turn];
    Multiply(sums, shares[GetAccumulatorRow(0)], shares[GetAccumulatorRow(2)]);
    StoreValues<T>(decode, item, sums, tile, 1);
  }
}

// One block for each tile of rows (x) and each part (y).
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) Decode(const __grid_constant__ DenseDecode decode) {
  unsigned char* memory = GetDynamicShared<unsigned char>();
  const uint32_t address = GetSharedAddress(memory),
                 skipped = (kAlignment - address % kAlignment) % kAlignment;
  const Shared shared{address + skipped,
                      reinterpret_cast<Exchange*>(memory + skipped + (1 + kStages) * kTileBytes)};
  if (threadIdx.x == 0) {
    constexpr int kWarps = kWarpgroup / kWarp;
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      InitBarrier(shared.full(stage), kWarpgroup);
      InitBarrier(shared.empty(stage), 2 * kWarps);
      InitBarrier(shared.weights(stage), kWarps);
    }
    InitBarrier(shared.queries_full(), kWarpgroup);
    InitBarrier(shared.queries_empty(), kWarps);
  }
  __syncthreads();
  const int tile = static_cast<int>(blockIdx.x);
  if (threadIdx.x < kWarpgroup) {
    RaiseRegisters<kComputeRegisters>();
    RunScorer<T>(decode, shared, tile);
  } else if (threadIdx.x < 2 * kWarpgroup) {
    RaiseRegisters<kComputeRegisters>();
    RunSecondHalf<T>(decode, shared, tile);
  } else {
    LowerRegisters<kLoaderRegisters>();
    RunLoader<T>(decode, shared, tile);
  }
}

}  // namespace

void RunDenseDecode(const DenseDecode& decode) {
  const int64_t rows = int64_t{decode.queries} * decode.heads;
  const dim3 blocks(ChooseBlocks(rows, kTileRows), static_cast<unsigned>(decode.part_count));
  if (decode.dtype == DType::kBFloat16) {
    Launch("dense_decode_fwd", &Decode<Bf16>, blocks, kThreads, kSharedBytes, decode);
  } else {
    Launch("dense_decode_fwd", &Decode<Fp16>, blocks, kThreads, kSharedBytes, decode);
  }
}

}  // namespace vllm::flashmla
