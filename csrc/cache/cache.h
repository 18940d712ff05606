// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "core/rows.h"

namespace vllm {

// How a cache holds its numbers: as they are, or as fp8 with a scale: stored = value / scale, value
// = stored * scale. Conversion rounds to nearest, ties to even, and saturates.
enum class CacheFormat { kSame, kE4m3, kE5m2 };

// The vectors of a batch of tokens: `heads` of `width` elements for each. Strides are in elements.
struct TokenVectors {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;  // read when the cache has another format
  size_t element_size = 0;        // bytes
  int64_t heads = 0;
  int64_t width = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

// A cache of vectors in blocks of `block_size` tokens. Element d of head h of the token at offset t
// of block b lies at
//   b * block_stride + h * head_stride + t / group * group_stride + t % group * token_stride + d /
//   chunk * chunk_stride + d % chunk
// which describes rows (chunk = width), keys cut into chunks of 16 bytes, and transposed values
// (chunk = 1, token_stride = 1).
struct PagedCache {
  void* data = nullptr;
  CacheFormat format = CacheFormat::kSame;
  int64_t block_size = 1;
  int64_t block_stride = 0;
  int64_t head_stride = 0;
  int64_t group = 1;  // divides block_size
  int64_t group_stride = 0;
  int64_t token_stride = 0;
  int64_t chunk = 1;  // divides the vectors' width
  int64_t chunk_stride = 0;
};

struct CacheWrite {
  TokenVectors from;
  PagedCache to;
  const float* scales =
      nullptr;  // of head h: scales[h * scale_stride], null for 1; not read by kSame
  int64_t scale_stride = 0;

  // The same write; rows without a gap between the heads are one row, where one scale is theirs.
  CacheWrite Merged() const {
    CacheWrite merged = *this;
    if (to.chunk == from.width && from.head_stride == from.width && to.head_stride == from.width &&
        scale_stride == 0) {
      merged.from.width *= from.heads;
      merged.from.heads = 1;
      merged.to.chunk = merged.from.width;
    }
    return merged;
  }
};

// Where the tokens go: slot = block * block_size + offset; -1 for a token that goes nowhere. On the
// CPU the caller has seen that all slots lie within the cache; a GPU leaves tokens out whose slots
// do not.
struct Slots {
  const int64_t* data = nullptr;
  int64_t stride = 1;
  int64_t tokens = 0;
  int64_t end = 0;  // slots of the cache
};

// Carries out `count` writes (at most 2) of the same tokens, to caches with one block_size. Of
// tokens with equal slots any one may win.
void WriteToCache(const CacheWrite* writes, int count, const Slots& slots);

// What is read: row `offset` of block `block` lies block * block_stride + offset * row_stride
// elements from `data`.
struct CacheRows {
  const void* data = nullptr;
  CacheFormat format = CacheFormat::kSame;
  size_t element_size = 0;
  int64_t width = 0;
  int64_t blocks = 0;
  int64_t block_size = 1;
  int64_t block_stride = 0;
  int64_t row_stride = 0;
};

// The blocks of `batch` sequences. Sequence s gets tokens [Bound(s), Bound(s + 1)) of the output,
// of which those from `tokens` on are left out; they come from positions Start(s) onwards, position
// p from block Block(s, p / block_size). On the CPU the caller has seen that bounds do not
// decrease, and that all positions have blocks and these are the cache's; a GPU leaves tokens out
// for which that is not so.
struct Sequences {
  const int32_t* table = nullptr;
  int64_t table_stride = 0;  // from sequence to sequence
  int64_t column_stride = 1;
  int64_t columns = 0;
  const int32_t* bounds = nullptr;
  int64_t bound_stride = 1;
  const int32_t* starts = nullptr;  // null: all begin at 0
  int64_t start_stride = 1;
  int64_t batch = 0;
  int64_t tokens = 0;

  VLLM_HOST_DEVICE int64_t Bound(int64_t sequence) const { return bounds[sequence * bound_stride]; }
  VLLM_HOST_DEVICE int64_t Start(int64_t sequence) const {
    return starts == nullptr ? 0 : starts[sequence * start_stride];
  }
  VLLM_HOST_DEVICE int64_t Block(int64_t sequence, int64_t column) const {
    return table[sequence * table_stride + column * column_stride];
  }
  // The last sequence that begins at `token` or before it; -1 without one. It is the token's,
  // unless that lies behind all sequences.
  VLLM_HOST_DEVICE int64_t Of(int64_t token) const {
    int64_t begin = 0, end = batch;
    while (begin < end) {
      const int64_t middle = (begin + end) / 2;
      if (Bound(middle) <= token) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin - 1;
  }
};

// Gathers rows of the cache, fp8 times *scale, into rows of `to`, which has `dtype` when the cache
// is fp8 and the cache's own type otherwise; `to_stride` is in elements.
void GatherFromCache(const CacheRows& from, const Sequences& sequences, const float* scale,
                     void* to, DType dtype, int64_t to_stride);

// Converts rows between floating point and fp8: to.data holds fp8 when `quantize`, from.data
// otherwise; the dtype on that side means nothing.
void ConvertFp8(const Rows& to, const Rows& from, CacheFormat format, bool quantize, float scale);

// The copies of a library for a GPU take place on the current stream, between memory of the GPU and
// of the host as the addresses have it; the arguments themselves lie in the host's memory, and are
// read before the call returns.

// Copies blocks of `bytes` in order, pairs[2i] of `from` to pairs[2i + 1] of `to`; as if one after
// the other. On the CPU the two blocks of a pair may overlap.
void CopyBlocks(char* to, const char* from, int64_t bytes, const int64_t* pairs, int64_t count);

// Copies sizes[i] bytes from address from[i] to address to[i] for each i < count. No copy may write
// what another reads or writes.
void CopyRanges(const int64_t* to, const int64_t* from, const int64_t* sizes, int64_t count);

}  // namespace vllm
