// SPDX-License-Identifier: Apache-2.0
#include "cache/cache.h"

#include <cstdint>
#include <type_traits>

#include "cache/place.h"
#include "core/gpu/launch.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// Returns the element unchanged, or multiplied by the scale if the types differ.
template <typename Out, typename In>
__device__ __forceinline__ Out Read(In x, float scale) {
  if constexpr (std::is_same_v<Out, In>) {
    return x;
  } else {
    return FromFloat<Out>(FromFp8(x) * scale);
  }
}

// One warp for each token of the output; a lane processes kCount elements a step. Without a
// conversion, In and Out are the same type; `from` and `to_stride` are in its units.
template <int kCount, typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    GatherTokens(CacheRows from, Sequences sequences, const float* scale, Out* to,
                 int64_t to_stride) {
  const int64_t steps = from.width / kCount;
  float factor = 1.0f;
  if constexpr (!std::is_same_v<In, Out>) factor = *scale;
  for (int64_t token = int64_t{blockIdx.x} * kWarps + Warp(); token < sequences.tokens;
       token += int64_t{gridDim.x} * kWarps) {
    const TokenPlace place = FindPlace(sequences, token, from.blocks, from.block_size);
    if (place.block < 0) continue;
    const In* row = static_cast<const In*>(from.data) + place.block * from.block_stride +
                    place.offset * from.row_stride;
    Out* target = to + token * to_stride;
    for (int64_t step = Lane(); step < steps; step += kWarp) {
      const Pack<In, kCount> loaded = LoadPack<kCount>(row + step * kCount);
      Pack<Out, kCount> stored;
#pragma unroll
      for (int k = 0; k < kCount; ++k) stored.items[k] = Read<Out>(loaded.items[k], factor);
      StorePack(target + step * kCount, stored);
    }
  }
}

template <int kCount, typename In, typename Out>
void LaunchGather(const CacheRows& from, const Sequences& sequences, const float* scale, void* to,
                  int64_t to_stride) {
  Launch("gather_from_cache", &GatherTokens<kCount, In, Out>,
         ChooseBlocks(sequences.tokens, kWarps), kThreads, 0, from, sequences, scale,
         static_cast<Out*>(to), to_stride);
}

// 16 bytes that are copied at once.
struct alignas(16) Bytes16 {
  uint32_t words[4];
};

// Copies in the largest unit that divides all addresses.
void GatherSame(const CacheRows& from, const Sequences& sequences, void* to, int64_t to_stride) {
  const int64_t size = static_cast<int64_t>(from.element_size);
  const auto in_units = [&](auto unit) {
    using Unit = decltype(unit);
    constexpr int64_t kUnit = sizeof(Unit);
    const auto divides = [&](int64_t elements) { return elements * size % kUnit == 0; };
    if (!IsAligned(from.data, kUnit) || !IsAligned(to, kUnit) || !divides(from.width) ||
        !divides(from.block_stride) || !divides(from.row_stride) || !divides(to_stride)) {
      return false;
    }
    CacheRows units = from;
    units.width = from.width * size / kUnit;
    units.block_stride = from.block_stride * size / kUnit;
    units.row_stride = from.row_stride * size / kUnit;
    LaunchGather<1, Unit, Unit>(units, sequences, nullptr, to, to_stride * size / kUnit);
    return true;
  };
  in_units(Bytes16()) || in_units(uint32_t()) || in_units(uint16_t()) || in_units(uint8_t());
}

template <class Q>
void GatherFp8(const CacheRows& from, const Sequences& sequences, const float* scale, void* to,
               DType dtype, int64_t to_stride) {
  WithType(dtype, [&](auto element) {
    using Out = decltype(element);
    constexpr int kCount = kPerLoad<Out>;
    const bool packed = from.width % kCount == 0 && from.block_stride % kCount == 0 &&
                        from.row_stride % kCount == 0 && to_stride % kCount == 0 &&
                        IsAligned(from.data, kCount) && IsAligned(to, 16);
    if (packed) {
      LaunchGather<kCount, Q, Out>(from, sequences, scale, to, to_stride);
    } else {
      LaunchGather<1, Q, Out>(from, sequences, scale, to, to_stride);
    }
  });
}

struct Quantizing {
  float scale;
  template <class Q, typename T>
  __device__ __forceinline__ void operator()(T from, Q& to) const {
    to = ToFp8<Q>(ToFloat(from) / scale);
  }
};
struct Dequantizing {
  float scale;
  template <class Q, typename T>
  __device__ __forceinline__ void operator()(Q from, T& to) const {
    to = FromFloat<T>(FromFp8(from) * scale);
  }
};

template <int kCount, typename In, typename Out, class F>
__global__ void __launch_bounds__(kThreads) ConvertRows(Rows to, Rows from, F f) {
  const int64_t steps = from.width / kCount;
  for (int64_t row = blockIdx.y; row < from.count; row += gridDim.y) {
    const In* source = GetRow<const In>(from, row);
    Out* target = GetRow<Out>(to, row);
    for (int64_t step = int64_t{blockIdx.x} * kThreads + threadIdx.x; step < steps;
         step += int64_t{gridDim.x} * kThreads) {
      const Pack<In, kCount> loaded = LoadPack<kCount>(source + step * kCount);
      Pack<Out, kCount> stored;
#pragma unroll
      for (int k = 0; k < kCount; ++k) f(loaded.items[k], stored.items[k]);
      StorePack(target + step * kCount, stored);
    }
  }
}

template <int kCount, typename In, typename Out, class F>
void Convert(const Rows& to, const Rows& from, F f) {
  const auto fits = [&](const Rows& rows, size_t size) {
    return AreRowsAligned(rows, size, size * kCount);
  };
  const bool packed = from.width % kCount == 0 && fits(from, sizeof(In)) && fits(to, sizeof(Out));
  const int64_t steps = packed ? from.width / kCount : from.width;
  const dim3 blocks = ChooseRowGrid(steps, from.count, kThreads);
  if (packed) {
    Launch("convert_fp8", &ConvertRows<kCount, In, Out, F>, blocks, kThreads, 0, to, from, f);
  } else {
    Launch("convert_fp8", &ConvertRows<1, In, Out, F>, blocks, kThreads, 0, to, from, f);
  }
}

template <class Q>
void ConvertWith(const Rows& to, const Rows& from, bool quantize, float scale) {
  WithType(quantize ? from.dtype : to.dtype, [&](auto element) {
    using T = decltype(element);
    if (quantize) {
      Convert<kPerLoad<T>, T, Q>(to, from, Quantizing{scale});
    } else {
      Convert<kPerLoad<T>, Q, T>(to, from, Dequantizing{scale});
    }
  });
}

}  // namespace

void GatherFromCache(const CacheRows& from, const Sequences& sequences, const float* scale,
                     void* to, DType dtype, int64_t to_stride) {
  if (sequences.batch == 0) return;
  switch (from.format) {
    case CacheFormat::kSame:
      return GatherSame(from, sequences, to, to_stride);
    case CacheFormat::kE4m3:
      return GatherFp8<E4M3>(from, sequences, scale, to, dtype, to_stride);
    case CacheFormat::kE5m2:
      return GatherFp8<E5M2>(from, sequences, scale, to, dtype, to_stride);
  }
}

void ConvertFp8(const Rows& to, const Rows& from, CacheFormat format, bool quantize, float scale) {
  if (format == CacheFormat::kE4m3) {
    ConvertWith<E4M3>(to, from, quantize, scale);
  } else {
    ConvertWith<E5M2>(to, from, quantize, scale);
  }
}

}  // namespace vllm
