// SPDX-License-Identifier: Apache-2.0
// Attention of single tokens over a paged cache, after Dao et al., Flash-Decoding, 2023: blocks
// attend to partitions of the keys, and a second kernel merges what they found.
#include "attention/rocm_attention.h"

#include <cmath>
#include <cstdint>

#include "attention/rocm_attention_gpu.h"
#include "attention/rocm_attention_products.h"
#include "core/extremes.h"
#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"

namespace vllm {
namespace {

using namespace gpu;
using namespace gpu::rocm_attention;

// Writes exp(score - largest score) of each head over its scores, as elements of type Weight, and
// their sum. One warp processes a head: every lane has read its scores before another one writes.
template <class Engine>
__device__ __forceinline__ void ComputeWeights(const Partition& here, float* scores, float* maxima,
                                               float* sums) {
  using Weight = typename Engine::Weight;
  constexpr int kEach = kRocmPartition / kWarp;
  for (int head = Warp(); head < here.heads; head += kThreads / kWarp) {
    float* row = scores + head * kScoreStride;
    Weight* weights = reinterpret_cast<Weight*>(row);
    float mine[kEach];
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      mine[i] = row[i * kWarp + Lane()];
      largest = LargerNumber(mine[i], largest);
    }
    largest = WarpReduce(largest, Max());
    const float offset = largest == -INFINITY ? 0.0f : largest;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const Weight weight = FromFloat<Weight>(expf(mine[i] - offset) * Engine::kWeightUnit);
      sum += ToFloat(weight);  // of the rounded weights, so that they sum up to one
      weights[i * kWarp + Lane()] = weight;
    }
    sum = WarpReduce(sum, Sum());
    if (Lane() == 0) {
      maxima[head] = largest;
      sums[head] = sum;
    }
  }
}

// Sequences along x, heads of the cache and groups of kHeads query heads along y, partitions along
// z.
template <typename T, typename Code, int kSize, int kHeads>
__global__ void __launch_bounds__(kThreads) AttendToPartition(RocmAttention attention) {
  using Engine = ChooseEngine<T, Code, kSize, kHeads>;
  alignas(16) __shared__ typename Engine::Query queries[kHeads * Engine::kQueryStride];
  alignas(16) __shared__ float scores[kHeads * kScoreStride];
  __shared__ float maxima[kHeads], sums[kHeads];
  __shared__ int32_t tiles[kTiles];

  Partition here;
  if (!here.Find(attention, kHeads)) return;
  here.FindTiles(attention, tiles);
  for (int index = static_cast<int>(threadIdx.x); index < kHeads * kSize; index += kThreads) {
    const int head = index / kSize, d = index % kSize;
    typename Engine::Query element = {};
    if (head < here.heads) {
      element = Engine::ToQuery(static_cast<const T*>(
          attention.query)[here.token * attention.query_token_stride +
                           (here.head + head) * attention.query_head_stride + d]);
    }
    queries[head * Engine::kQueryStride + d] = element;
  }
  __syncthreads();
  Engine::ComputeScores(attention, here, tiles, queries, scores);
  __syncthreads();
  ComputeWeights<Engine>(here, scores, maxima, sums);
  __syncthreads();
  // Leaves sums over kParts parts of the keys in the memory of the scores.
  Engine::SumValues(attention, here, tiles, scores);
  __syncthreads();

  const float value_scale = attention.value_scale == nullptr ? 1.0f : *attention.value_scale;
  const bool whole = here.length <= kRocmPartition;
  const int64_t row = here.sequence * attention.heads + here.head;
  for (int index = static_cast<int>(threadIdx.x); index < here.heads * kSize; index += kThreads) {
    const int head = index / kSize, d = index % kSize;
    float value = 0.0f;
#pragma unroll
    for (int part = 0; part < Engine::kParts; ++part)
      value += scores[(part * kHeads + head) * kSize + d];
    value = sums[head] == 0.0f ? 0.0f : value / sums[head] * value_scale;
    if (whole) {
      StoreOut<T>(attention, here.token, here.head + head, d, value);
    } else {
      static_cast<T*>(
          attention.partial_out)[((row + head) * attention.partitions + here.index) * kSize + d] =
          FromFloat<T>(value);
    }
  }
  const int head = static_cast<int>(threadIdx.x);
  if (!whole && head < here.heads) {
    attention.maxima[(row + head) * attention.partitions + here.index] = maxima[head];
    attention.sums[(row + head) * attention.partitions + here.index] =
        sums[head] / Engine::kWeightUnit;
  }
}

// One block for each head (x) and sequence (y), one thread for each element of the head.
template <typename T>
__global__ void __launch_bounds__(kMergeThreads) MergePartitions(RocmAttention attention) {
  __shared__ float shares[kMergeThreads];
  const int64_t sequence = blockIdx.y, head = blockIdx.x;
  const int64_t token = FindToken(attention, sequence);
  const int64_t length = FindLength(attention, sequence);
  if (token < 0 || length <= kRocmPartition) return;
  const int count = static_cast<int>((length + kRocmPartition - 1) / kRocmPartition);
  const int64_t first = (sequence * attention.heads + head) * attention.partitions;
  const float* maxima = attention.maxima + first;
  const float* sums = attention.sums + first;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  float largest = -INFINITY;
  for (int i = thread; i < count; i += threads) largest = LargerNumber(maxima[i], largest);
  largest = BlockReduce(largest, -INFINITY, Max());
  if (largest == -INFINITY) largest = 0.0f;  // the sums are zero, or NaN
  const int size = static_cast<int>(attention.head_size);
  const T* partial = static_cast<const T*>(attention.partial_out) + first * size;
  float total = 0.0f, value = 0.0f;
  for (int begin = 0; begin < count; begin += threads) {
    const int some = Lesser(count - begin, threads);
    if (thread < some)
      shares[thread] = expf(maxima[begin + thread] - largest) * sums[begin + thread];
    __syncthreads();
#pragma unroll 8
    for (int i = 0; i < some; ++i) {
      total += shares[i];
      value = fmaf(shares[i], ToFloat(partial[int64_t{begin + i} * size + thread]), value);
    }
    __syncthreads();  // shares are written again
  }
  StoreOut<T>(attention, token, head, thread, total == 0.0f ? 0.0f : value / total);
}

template <typename T, typename Code, int kSize, int kHeads>
void Attend(const RocmAttention& attention) {
  const int64_t groups = CountGroups(attention, kHeads);
  const int64_t partitions = attention.partitions > 1 ? attention.partitions : 1;
  Launch(
      "paged_attention", &AttendToPartition<T, Code, kSize, kHeads>,
      dim3(static_cast<unsigned>(attention.sequences),
           static_cast<unsigned>(attention.kv_heads * groups), static_cast<unsigned>(partitions)),
      kThreads, 0, attention);
}

template <typename T, typename Code, int kSize>
void AttendHeads(const RocmAttention& attention) {
  const int64_t ratio = attention.heads / attention.kv_heads;
  if (ratio == 1) {
    Attend<T, Code, kSize, 1>(attention);
  } else if (ratio <= 4) {
    Attend<T, Code, kSize, 4>(attention);
  } else {
    Attend<T, Code, kSize, matrix::kLines>(attention);
  }
}

template <typename T, typename Code>
void AttendSizes(const RocmAttention& attention) {
  if (attention.head_size == 64) {
    AttendHeads<T, Code, 64>(attention);
  } else {
    AttendHeads<T, Code, 128>(attention);
  }
}

template <typename T>
void Run(const RocmAttention& attention) {
  if (attention.heads == 0) return;
  if (attention.cache_format == CodeFormat::kNone) {
    AttendSizes<T, T>(attention);
  } else {
    AttendSizes<T, E4M3>(attention);
  }
  if (attention.partitions > 1) {
    Launch("paged_attention", &MergePartitions<T>,
           dim3(static_cast<unsigned>(attention.heads), static_cast<unsigned>(attention.sequences)),
           static_cast<int>(attention.head_size), 0, attention);
  }
}

}  // namespace

void RunRocmAttention(const RocmAttention& attention) {
  if (attention.dtype == DType::kFloat16) {
    Run<Fp16>(attention);
  } else {
    Run<Bf16>(attention);
  }
}

}  // namespace vllm
