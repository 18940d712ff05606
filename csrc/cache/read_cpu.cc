// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cstdint>
#include <cstring>

#include "cache/cache.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cache/read_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "cache/fp8_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Gathers tokens [begin, end) of the output.
void Gather(const CacheRows& from, const Sequences& sequences, int64_t begin, int64_t end,
            float scale, void* to, DType dtype, int64_t to_stride) {
  int64_t sequence = sequences.FindSequence(begin);
  const size_t bytes = static_cast<size_t>(from.width) * from.element_size;
  for (int64_t token = begin; token < end; ++token) {
    while (token >= sequences.GetBound(sequence + 1)) ++sequence;
    const int64_t position = token - sequences.GetBound(sequence) + sequences.GetStart(sequence);
    const int64_t block = sequences.GetBlock(sequence, position / from.block_size);
    const int64_t source = block * from.block_stride + position % from.block_size * from.row_stride;
    if (from.format == CacheFormat::kSame) {
      const int64_t size = static_cast<int64_t>(from.element_size);
      std::memcpy(static_cast<char*>(to) + token * to_stride * size,
                  static_cast<const char*>(from.data) + source * size, bytes);
    } else {
      const uint8_t* row = static_cast<const uint8_t*>(from.data) + source;
      DequantizeRow(row, static_cast<size_t>(from.width), scale, from.format, to, dtype,
                    token * to_stride);
    }
  }
}

void ConvertRows(const Rows& to, const Rows& from, CacheFormat format, bool quantize, float scale,
                 int64_t begin, int64_t end) {
  const size_t width = static_cast<size_t>(from.width);
  for (int64_t row = begin; row < end; ++row) {
    if (quantize) {
      QuantizeRow(from.data, from.dtype, from.Offset(row), width, scale, format,
                  to.Row<uint8_t>(row));
    } else {
      DequantizeRow(from.Row<const uint8_t>(row), width, scale, format, to.data, to.dtype,
                    to.Offset(row));
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"

namespace vllm {
namespace {

HWY_EXPORT(Gather);
HWY_EXPORT(ConvertRows);

}  // namespace

void GatherFromCache(const CacheRows& from, const Sequences& sequences, const float* scale,
                     void* to, DType dtype, int64_t to_stride) {
  if (sequences.batch == 0) return;
  const int64_t first = std::min(sequences.GetBound(0), sequences.tokens);
  const int64_t last = std::min(sequences.GetBound(sequences.batch), sequences.tokens);
  auto& function = VLLM_CPU_DISPATCH(Gather);
  const float factor = scale == nullptr ? 1.0f : *scale;
  ParallelFor(last - first, from.width, [&](int64_t begin, int64_t end) {
    function(from, sequences, first + begin, first + end, factor, to, dtype, to_stride);
  });
}

void ConvertFp8(const Rows& to, const Rows& from, CacheFormat format, bool quantize, float scale) {
  // A contiguous tensor is one row; it is cut into pieces so that all threads have work.
  constexpr int64_t kPiece = 4096;
  auto& function = VLLM_CPU_DISPATCH(ConvertRows);
  if (from.count != 1) {
    return ParallelFor(from.count, from.width, [&](int64_t begin, int64_t end) {
      function(to, from, format, quantize, scale, begin, end);
    });
  }
  ParallelFor((from.width + kPiece - 1) / kPiece, kPiece, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPiece, width = std::min(end * kPiece, from.width) - first;
    const auto piece = [&](const Rows& rows, size_t size) {
      Rows part = rows;
      part.data = static_cast<char*>(rows.data) + static_cast<size_t>(first) * size;
      part.width = width;
      return part;
    };
    const size_t wide = static_cast<size_t>(GetSize(quantize ? from.dtype : to.dtype));
    function(piece(to, quantize ? 1 : wide), piece(from, quantize ? wide : 1), format, quantize,
             scale, 0, 1);
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
