// SPDX-License-Identifier: Apache-2.0
// The kernel of gemm/few_rows.h, for any type of weight.
//
// A team of 32 lanes multiplies kColumns rows of the weight with up to kRows rows of activations.
// Each lane has its own places along the depth; in the end, the lanes add up their sums. Several
// teams of a block, the slices, can share the same rows of the weight, and several blocks, the
// parts. Activations are read from the caches, where all teams find the same ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/gpu/launch.h"
#include "core/gpu/types.h"
#include "gemm/few_rows.h"

namespace vllm::gpu {

inline constexpr int kFewRowsThreads = 256;
inline constexpr int kFewRowsTeams = kFewRowsThreads / kWarp;
// Rows of the weight that a team has.
inline constexpr int kColumns = 4;
// Teams that keep a compute unit busy.
inline constexpr int64_t kTeamsPerUnit = 16;
inline constexpr int64_t kMostParts = 32;
// Of kernels with quantised weights: elements that a lane multiplies in one step, which are the
// codes of one load or belong to one group, and rows of activations that are multiplied at once.
inline constexpr int kQuantizedDepth = 16;
inline constexpr int kQuantizedRows = 8;

// A launch of the kernel: a product, and how its work is divided.
struct FewRowsLaunch {
  FewRows product;
  int slices = 1;            // teams of a block that share rows of the weight: 1, 2, 4 or 8
  int part = 0;              // the depth of a part, a multiple of what its teams read in one step
  int64_t parts = 1;         // along z
  float* partial = nullptr;  // [parts, rows, columns]; null if there is one part
};

// Divides the work. `step` is the depth that a team reads in one step; `most_parts` is 1 if blocks
// do not share rows of the weight.
inline FewRowsLaunch DivideFewRows(const FewRows& product, int step, int64_t most_parts) {
  FewRowsLaunch launch;
  launch.product = product;
  const int64_t groups = (product.columns + kColumns - 1) / kColumns;
  const int64_t wanted = product.compute_units * kTeamsPerUnit;
  const int64_t steps = std::max<int64_t>((product.depth + step - 1) / step, 1);
  while (launch.slices < kFewRowsTeams && groups * launch.slices < wanted &&
         2 * launch.slices <= steps)
    launch.slices *= 2;
  const int64_t rounds = (steps + launch.slices - 1) / launch.slices;
  const int64_t teams = std::max<int64_t>(groups * launch.slices, 1);
  const int64_t parts =
      std::clamp<int64_t>((wanted + teams - 1) / teams, 1, std::min(most_parts, rounds));
  const int64_t rounds_of_part = (rounds + parts - 1) / parts;
  launch.parts = (rounds + rounds_of_part - 1) / rounds_of_part;
  // The last part may be as deep as all of it, which is below 2^31.
  launch.part = static_cast<int>(
      std::min<int64_t>(rounds_of_part * launch.slices * step, 0x7fffffff / step * step));
  return launch;
}

// Loads `kCount` words of 4 bytes. kAligned: they are at a multiple of their size and all exist;
// otherwise those from `exist` bytes on are zeros, and bytes are read one by one.
template <int kCount>
struct WordPack {
  uint32_t items[kCount];
};

template <bool kAligned, int kCount>
__device__ __forceinline__ WordPack<kCount> LoadWords(const void* from,
                                                      [[maybe_unused]] int64_t exist) {
  WordPack<kCount> words;
  if constexpr (kAligned) {
    const auto pack = LoadPack<kCount>(static_cast<const uint32_t*>(from));
#pragma unroll
    for (int i = 0; i < kCount; ++i) words.items[i] = pack.items[i];
  } else {
    const auto* bytes = static_cast<const uint8_t*>(from);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      words.items[i] = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (4 * i + j < exist) words.items[i] |= uint32_t{bytes[4 * i + j]} << (8 * j);
      }
    }
  }
  return words;
}

// The same for memory that is read only once, which should not displace other lines in the caches.
template <bool kAligned, int kCount>
__device__ __forceinline__ WordPack<kCount> LoadWordsOnce(const void* from, int64_t exist) {
#if defined(__HIP_DEVICE_COMPILE__)
  if constexpr (kAligned) {
    typedef uint32_t Vector __attribute__((ext_vector_type(kCount)));
    const Vector vector = __builtin_nontemporal_load(static_cast<const Vector*>(from));
    WordPack<kCount> words;
#pragma unroll
    for (int i = 0; i < kCount; ++i) words.items[i] = vector[i];
    return words;
  }
#endif
  return LoadWords<kAligned, kCount>(from, exist);
}

// Returns the address of element k of row first_row + n, or of the last row if there is none, with
// elements of `size` bytes. kNear: rows that are multiplied at once are less than 2^31 bytes apart
// (see AreActivationsAligned), so that their distances need one scalar register each.
template <bool kNear>
__device__ __forceinline__ const uint8_t* GetActivations(const FewRows& product, int64_t first_row,
                                                         int n, int size, int k) {
  const auto* data = static_cast<const uint8_t*>(product.activations);
  if constexpr (kNear) {
    const int last = static_cast<int>(product.rows - 1 - first_row);
    const uint32_t row = static_cast<uint32_t>(Lesser(n, last)) *
                         static_cast<uint32_t>(product.activation_stride * size);
    return data + first_row * product.activation_stride * size +
           (row + static_cast<uint32_t>(k * size));
  } else {
    return data + (Lesser(first_row + n, product.rows - 1) * product.activation_stride + k) * size;
  }
}

// Adds up each of `kCount` values over the lanes of the warp. In each step, a lane gives half of
// its values away and gets the other lane's part of those that it keeps, as long as it has more
// than one. Returns the index of the first value that the lane has in the end, of
// max(kCount / kWarp, 1). Every value is added up in the same order.
template <int kCount, int kMask = kWarp / 2>
__device__ __forceinline__ int SumOverLanes(float (&values)[kCount]) {
  if constexpr (kMask == 0) {
    return 0;
  } else if constexpr (kCount == 1) {
    values[0] += ShuffleXor(values[0], kMask);
    return SumOverLanes<1, kMask / 2>(values);
  } else {
    constexpr int kHalf = kCount / 2;
    const bool upper = (Lane() & kMask) != 0;
    float kept[kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float given = upper ? values[i] : values[i + kHalf];
      kept[i] = (upper ? values[i + kHalf] : values[i]) + ShuffleXor(given, kMask);
    }
    const int first = SumOverLanes<kHalf, kMask / 2>(kept);
#pragma unroll
    for (int i = 0; i < kHalf; ++i) values[i] = kept[i];
    return first + (upper ? kHalf : 0);
  }
}

template <typename T>
__device__ __forceinline__ void StoreResult(const FewRows& product, int64_t row, int64_t column,
                                            float value) {
  if (product.bias != nullptr) {
    value += ToFloat(static_cast<const T*>(
        product.bias)[row * product.bias_row_stride + column * product.bias_column_stride]);
  }
  static_cast<T*>(product.out)[row * product.out_stride + column] = FromFloat<T>(value);
}

// Source:
//   using Output                    the type of `out`
//   static constexpr int kDepth     elements that a lane multiplies in one step
//   static constexpr int kRows      rows of activations
//   static constexpr bool kTwoSteps whether a loop has two steps
//   Activations, Weights            what a lane loads in one step, of all rows
//   LoadActivations(product, first row, k), LoadWeights(product, columns, k)
//   Multiply(columns, k, activations, weights, sums)
//   float Scale()                   by which sums are multiplied

// Adds what a lane multiplies to its sums: at k, k + stride and so on, below `end`.
//
// The activations of a step are loaded before the weights of the next one: loads arrive in order,
// and a multiplication should not wait for more than it needs.
template <class Source>
__device__ __forceinline__ void MultiplyWeights(const Source& source, const FewRows& product,
                                                const int64_t (&columns)[kColumns],
                                                int64_t first_row, int k, int end, int stride,
                                                float (&sums)[Source::kRows * kColumns]) {
  if (k >= end) return;
  auto weights = source.LoadWeights(product, columns, k);
  while (end - k > stride) {
    auto activations = source.LoadActivations(product, first_row, k);
    auto next = source.LoadWeights(product, columns, k + stride);
    source.Multiply(columns, k, activations, weights, sums);
    k += stride;
    // Moving `next` to `weights` waits for it. Where registers suffice, the loop has two steps, and
    // the weights stay where they are.
    if constexpr (Source::kTwoSteps) {
      activations = source.LoadActivations(product, first_row, k);
      if (end - k <= stride) {
        source.Multiply(columns, k, activations, next, sums);
        return;
      }
      weights = source.LoadWeights(product, columns, k + stride);
      source.Multiply(columns, k, activations, next, sums);
      k += stride;
    } else {
      weights = next;
    }
  }
  source.Multiply(columns, k, source.LoadActivations(product, first_row, k), weights, sums);
}

template <class Source>
__global__ void __launch_bounds__(kFewRowsThreads)
    FewRowsKernel(FewRowsLaunch launch, Source source) {
  using T = typename Source::Output;
  constexpr int kRows = Source::kRows, kSums = kRows * kColumns, kDepth = Source::kDepth;
  constexpr int kEach = kSums > kWarp ? kSums / kWarp : 1;
  __shared__ float shared[kFewRowsTeams][kSums];
  const FewRows& product = launch.product;
  const int slices = launch.slices, teams = kFewRowsTeams / slices;
  const int slice = Warp() % slices, team = Warp() / slices;
  const int64_t first_row = int64_t{blockIdx.y} * kRows;
  const int64_t groups = (product.columns + kColumns - 1) / kColumns;
  const int begin = static_cast<int>(blockIdx.z) * launch.part;
  const int depth = static_cast<int>(product.depth);
  const int end = depth - begin > launch.part ? begin + launch.part : depth;
  const float scale = source.Scale();
  for (int64_t first = int64_t{blockIdx.x} * teams; first < groups;
       first += int64_t{gridDim.x} * teams) {
    const int64_t group = Lesser(first + team, groups - 1);
    int64_t columns[kColumns];
#pragma unroll
    for (int i = 0; i < kColumns; ++i)
      columns[i] = Lesser(group * kColumns + i, product.columns - 1);
    float sums[kSums] = {};
    MultiplyWeights(source, product, columns, first_row, begin + (slice * kWarp + Lane()) * kDepth,
                    end, slices * kWarp * kDepth, sums);
    const int index = SumOverLanes(sums);
    constexpr int kOwners = kSums < kWarp ? kSums : kWarp;
    if (Lane() % (kWarp / kOwners) == 0) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) shared[Warp()][index + i] = sums[i];
    }
    __syncthreads();
    // Adjacent threads store adjacent columns.
    for (int i = static_cast<int>(threadIdx.x); i < teams * kSums; i += kFewRowsThreads) {
      const int64_t row = first_row + i / (teams * kColumns);
      const int64_t column = first * kColumns + i % (teams * kColumns);
      if (row >= product.rows || column >= product.columns) continue;
      const int owner = i % (teams * kColumns) / kColumns * slices;
      const int sum = i / (teams * kColumns) * kColumns + i % kColumns;
      float value = 0;
      for (int j = 0; j < slices; ++j) value += shared[owner + j][sum];
      value *= scale;
      if (launch.partial != nullptr) {
        launch.partial[(blockIdx.z * product.rows + row) * product.columns + column] = value;
      } else {
        StoreResult<T>(product, row, column, value);
      }
    }
    __syncthreads();  // shared may be written again
  }
}

template <class Source>
void LaunchFewRows(const char* op, const FewRowsLaunch& launch, const Source& source) {
  const FewRows& product = launch.product;
  if (product.rows == 0) return;
  const int64_t groups = (product.columns + kColumns - 1) / kColumns;
  const dim3 blocks(ChooseBlocks(groups, kFewRowsTeams / launch.slices),
                    static_cast<unsigned>((product.rows + Source::kRows - 1) / Source::kRows),
                    static_cast<unsigned>(launch.parts));
  Launch(op, FewRowsKernel<Source>, blocks, kFewRowsThreads, 0, launch, source);
}

// Calls f with a constant of at least min(rows, kMost), which is a power of two up to kMost.
template <int kMost, class F>
void WithRowCount(int64_t rows, F&& f) {
  if constexpr (kMost == 1) {
    f(std::integral_constant<int, 1>());
  } else if (rows > kMost / 2) {
    f(std::integral_constant<int, kMost>());
  } else {
    WithRowCount<kMost / 2>(rows, f);
  }
}

// Returns whether all rows begin at multiples of `bytes`, a multiple of which is their length.
inline bool AreAligned(const void* data, int64_t stride, int64_t length, int64_t bytes) {
  return IsAligned(data, bytes) && stride % bytes == 0 && length % bytes == 0;
}

// The same for the activations, with elements of `size` bytes; and whether GetActivations can take
// them for near.
inline bool AreActivationsAligned(const FewRows& product, int64_t size) {
  constexpr int64_t kMostAtOnce = 16, kMostBytes = int64_t{1} << 31;
  return AreAligned(product.activations, product.activation_stride * size, product.depth * size,
                    16) &&
         product.activation_stride < kMostBytes / kMostAtOnce / size &&
         product.depth < kMostBytes / size;
}

}  // namespace vllm::gpu
