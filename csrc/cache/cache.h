// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "core/rows.h"

namespace vllm {

// The number format of a cache: that of the tokens, or fp8 with a scale, where stored = value /
// scale and value = stored * scale. Conversion rounds to nearest, ties to even, and saturates.
enum class CacheFormat { kSame, kE4m3, kE5m2 };

// The vectors of a batch of tokens: `heads` vectors of `width` elements for each token. Strides are
// in elements.
struct TokenVectors {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;  // used if the cache has another format
  size_t element_size = 0;        // bytes
  int64_t heads = 0;
  int64_t width = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

// A cache of vectors in blocks of `block_size` tokens. Element d of head h of the token at offset t
// of block b is at
//   b * block_stride + h * head_stride + t / group * group_stride + t % group * token_stride
//       + d / chunk * chunk_stride + d % chunk
// This describes rows (chunk = width), keys cut into chunks of 16 bytes, and transposed values
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

  // Returns an equivalent write in which heads that are adjacent and share one scale are merged
  // into one row.
  CacheWrite MergeHeads() const {
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

// The destinations of tokens: slot = block * block_size + offset, or -1 for a token that is
// skipped. On the CPU the caller has checked that all slots are in the cache; a GPU skips tokens
// whose slots are not.
struct Slots {
  const int64_t* data = nullptr;
  int64_t stride = 1;
  int64_t tokens = 0;
  int64_t end = 0;  // slots of the cache
};

// Carries out `count` writes (at most 2) of the same tokens to caches with the same block_size. If
// two tokens share a slot, which one is stored is unspecified.
void WriteToCache(const CacheWrite* writes, int count, const Slots& slots);

// The rows that are read: row `offset` of block `block` is at block * block_stride + offset *
// row_stride elements from `data`.
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

// The blocks of `batch` sequences. Sequence s gets tokens [GetBound(s), GetBound(s + 1)) of the
// output, except those from `tokens` on. They come from positions GetStart(s) onwards; position p
// is in block GetBlock(s, p / block_size). On the CPU the caller has checked that bounds do not
// decrease and that all positions have blocks of the cache; a GPU skips tokens for which this does
// not hold.
struct Sequences {
  const int32_t* table = nullptr;
  int64_t table_stride = 0;  // from sequence to sequence
  int64_t column_stride = 1;
  int64_t columns = 0;
  const int32_t* bounds = nullptr;
  int64_t bound_stride = 1;
  const int32_t* starts = nullptr;  // null: all sequences begin at 0
  int64_t start_stride = 1;
  int64_t batch = 0;
  int64_t tokens = 0;

  VLLM_HOST_DEVICE int64_t GetBound(int64_t sequence) const {
    return bounds[sequence * bound_stride];
  }
  VLLM_HOST_DEVICE int64_t GetStart(int64_t sequence) const {
    return starts == nullptr ? 0 : starts[sequence * start_stride];
  }
  VLLM_HOST_DEVICE int64_t GetBlock(int64_t sequence, int64_t column) const {
    return table[sequence * table_stride + column * column_stride];
  }
  // Returns the last sequence that begins at `token` or before, or -1. The token belongs to it,
  // unless the token is after all sequences.
  VLLM_HOST_DEVICE int64_t FindSequence(int64_t token) const {
    int64_t begin = 0, end = batch;
    while (begin < end) {
      const int64_t middle = (begin + end) / 2;
      if (GetBound(middle) <= token) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin - 1;
  }
};

// Gathers rows of the cache into rows of `to`; fp8 is multiplied by *scale. `to` has `dtype` if the
// cache is fp8, and the cache's type otherwise. `to_stride` is in elements.
void GatherFromCache(const CacheRows& from, const Sequences& sequences, const float* scale,
                     void* to, DType dtype, int64_t to_stride);

// Converts rows between floating point and fp8. to.data has fp8 if `quantize` is set, otherwise
// from.data; the dtype on that side is ignored.
void ConvertFp8(const Rows& to, const Rows& from, CacheFormat format, bool quantize, float scale);

// In a library for a GPU, the copies below run on the current stream, between GPU and host memory
// as the addresses say. The arguments themselves are in host memory and are read before the call
// returns.

// Copies blocks of `bytes` bytes, block pairs[2i] of `from` to block pairs[2i + 1] of `to`, with
// the same result as one copy after the other. On the CPU the two blocks of a pair may overlap.
void CopyBlocks(char* to, const char* from, int64_t bytes, const int64_t* pairs, int64_t count);

// Copies sizes[i] bytes from address from[i] to address to[i] for each i < count. No copy may write
// memory that another copy reads or writes.
void CopyRanges(const int64_t* to, const int64_t* from, const int64_t* sizes, int64_t count);

}  // namespace vllm
