// SPDX-License-Identifier: Apache-2.0
#include "rotary/rotary.h"

#include <algorithm>
#include <cstdint>

#include "core/gpu/divide.h"
#include "rotary/rotary_gpu.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kMostThreads = 256;

struct Work {
  Rows positions;
  Heads query, key;
  RotaryCache cache;
  int64_t offset;
  bool inverse;
  int64_t pieces;      // of a head, of kPairs pairs each
  int64_t at_once;     // heads that a block rotates at once
  DivideBy by_pieces;  // divides thread numbers by the number of pieces
};

// A block processes a token. Its threads rotate the pieces of some heads, then those of the next
// heads. A thread has the same piece of each head and loads its angles once.
template <typename T, bool kNeox, bool kAligned>
__global__ void __launch_bounds__(kMostThreads) RotateTokens(Work work) {
  using Pairs = PairsOf<T, kNeox, kAligned>;
  const int64_t half = work.cache.rotary_dim / 2, heads = work.query.heads + work.key.heads;
  const int64_t first = work.by_pieces(threadIdx.x);
  if (first >= work.at_once) return;
  for (int64_t token = blockIdx.x; token < work.positions.count; token += gridDim.x) {
    int64_t position;
    if (!FindPosition(work.positions, token, work.cache, position)) continue;
    T* query = GetRow<T>(work.query.tokens, token) + work.offset;
    T* key = work.key.heads == 0 ? nullptr : GetRow<T>(work.key.tokens, token) + work.offset;
    // One iteration, unless a head has more pieces than a block has threads.
    for (int64_t piece = threadIdx.x - first * work.pieces; piece < work.pieces;
         piece += blockDim.x) {
      const int64_t i = piece * Pairs::kCount;
      Angles<Pairs::kCount> angles;
      angles.Load(work.cache, position, i);
      if (work.inverse) angles.Invert();
      for (int64_t h = first; h < heads; h += work.at_once) {
        T* head = h < work.query.heads ? query + h * work.query.head_stride
                                       : key + (h - work.query.heads) * work.key.head_stride;
        Pairs pairs;
        pairs.Load(head, i, half);
        float x[Pairs::kCount], y[Pairs::kCount];
        pairs.Get(x, y);
        angles.Rotate(x, y);
        Pairs::Store(head, i, half, x, y);
      }
    }
  }
}

template <typename T>
bool AreHeadsAligned(const Heads& heads, int64_t offset) {
  return AreRowsAligned(heads.tokens, sizeof(T), 16) &&
         (heads.heads <= 1 || heads.head_stride * sizeof(T) % 16 == 0) &&
         static_cast<uint64_t>(offset) * sizeof(T) % 16 == 0;
}

template <typename T, bool kNeox, bool kAligned>
void Rotate(Work work) {
  const int64_t heads = work.query.heads + work.key.heads;
  work.pieces = work.cache.rotary_dim / 2 / kPairs<T, kNeox, kAligned>;
  if (work.pieces == 0 || heads == 0) return;
  work.at_once = ChooseEvenShare(heads, std::max<int64_t>(1, kMostThreads / work.pieces));
  work.by_pieces = DivideBy(work.pieces);
  const int threads = ChooseThreads(work.pieces * work.at_once, kMostThreads);
  Launch("rotary_embedding", &RotateTokens<T, kNeox, kAligned>,
         ChooseBlocks(work.positions.count, 1), threads, 0, work);
}

}  // namespace

void ApplyRotaryEmbedding(const Rows& positions, const Heads& query, const Heads* key,
                          const RotaryCache& cache, bool neox, int64_t offset, bool inverse) {
  const Work work{positions, query,      key == nullptr ? Heads() : *key, cache, offset, inverse, 0,
                  0,         DivideBy(1)};
  WithType(query.tokens.dtype, [&](auto element) {
    using T = decltype(element);
    const bool aligned = HasWholePairs<T>(cache, neox) && AreHeadsAligned<T>(query, offset) &&
                         (key == nullptr || AreHeadsAligned<T>(*key, offset));
    if (neox) {
      aligned ? Rotate<T, true, true>(work) : Rotate<T, true, false>(work);
    } else {
      aligned ? Rotate<T, false, true>(work) : Rotate<T, false, false>(work);
    }
  });
}

}  // namespace vllm
