// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "attention/flashmla/dense_decode.h"
#include "core/gpu/launch.h"
#include "core/gpu/reduce.h"
#include "core/gpu/types.h"

namespace vllm::flashmla {
namespace {

using namespace gpu;

constexpr int kThreads = 128;
constexpr int kCount = 4;  // elements that a lane loads at once
constexpr int kLoads = kValueWidth / (kWarp * kCount);
constexpr float kLn2 = 0.69314718f;

// One warp for each row (x) of each sequence (y) that was cut.
template <typename T>
__global__ void __launch_bounds__(kThreads) CombinePieces(DenseDecode decode) {
  const int rows = decode.queries * decode.heads;
  const int row = static_cast<int>(blockIdx.x) * (kThreads / kWarp) + Warp();
  if (row >= rows) return;
  const int limit = decode.batch + decode.part_count;
  for (int sequence = static_cast<int>(blockIdx.y); sequence < decode.batch;
       sequence += static_cast<int>(gridDim.y)) {
    const int begin = Greater(0, decode.splits[sequence]),
              end = Lesser(decode.splits[sequence + 1], limit);
    if (end - begin <= 1) continue;
    float largest = -INFINITY;
    for (int piece = begin + Lane(); piece < end; piece += kWarp) {
      largest = LargerNumber(decode.piece_lse[int64_t{piece} * rows + row], largest);
    }
    largest = WarpReduce(largest, Max());
    const float base = largest == -INFINITY ? 0.0f : largest;
    float sum = 0;
    for (int piece = begin + Lane(); piece < end; piece += kWarp)
      sum += exp2f(decode.piece_lse[int64_t{piece} * rows + row] - base);
    sum = WarpReduce(sum, Sum());
    const float share = sum == 0.0f ? 0.0f : 1.0f / sum;

    float values[kLoads][kCount] = {};
#pragma unroll 4
    for (int piece = begin; piece < end; ++piece) {
      const int64_t at = int64_t{piece} * rows + row;
      const float weight = exp2f(decode.piece_lse[at] - base) * share;
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const auto pack = LoadPack<kCount>(decode.piece_out + at * kValueWidth +
                                           (load * kWarp + Lane()) * kCount);
#pragma unroll
        for (int i = 0; i < kCount; ++i)
          values[load][i] = fmaf(pack.items[i], weight, values[load][i]);
      }
    }
    T* out = static_cast<T*>(decode.out) + (int64_t{sequence} * rows + row) * kValueWidth;
#pragma unroll
    for (int load = 0; load < kLoads; ++load)
      StorePack(out + (load * kWarp + Lane()) * kCount, FromFloats<T>(values[load]));
    if (Lane() == 0) {
      const int query = row / decode.heads, head = row % decode.heads;
      decode.lse[(int64_t{sequence} * decode.heads + head) * decode.queries + query] =
          sum == 0.0f ? INFINITY : (base + log2f(sum)) * kLn2;
    }
  }
}

}  // namespace

void RunCombine(const DenseDecode& decode) {
  constexpr int kMostSequences = 65535;
  const dim3 blocks(ChooseBlocks(int64_t{decode.queries} * decode.heads, kThreads / kWarp),
                    static_cast<unsigned>(std::min(decode.batch, kMostSequences)));
  if (decode.dtype == DType::kBFloat16) {
    Launch("dense_decode_fwd", &CombinePieces<Bf16>, blocks, kThreads, 0, decode);
  } else {
    Launch("dense_decode_fwd", &CombinePieces<Fp16>, blocks, kThreads, 0, decode);
  }
}

}  // namespace vllm::flashmla
