// SPDX-License-Identifier: Apache-2.0
#include "activation/activation.h"

#include "core/extremes.h"
#include "core/gpu/launch.h"
#include "core/gpu/rows.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kThreads = 256;

__device__ __forceinline__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

struct Silu {
  __device__ __forceinline__ float operator()(float x) const { return x * Sigmoid(x); }
};

struct Gelu {
  __device__ __forceinline__ float operator()(float x) const {
    // erfc keeps its relative precision in the tail, where 1 + erf(x) cancels.
    return 0.5f * x * erfcf(-0.70710678f * x);
  }
};

// (1 + tanh(u)) / 2 is sigmoid(2u).
struct GeluTanh {
  __device__ __forceinline__ float operator()(float x) const {
    return x * Sigmoid(2 * 0.7978845608f * fmaf(0.044715f * x * x, x, x));
  }
};

struct GeluQuick {
  __device__ __forceinline__ float operator()(float x) const { return x * Sigmoid(1.702f * x); }
};

struct ReluSquared {
  __device__ __forceinline__ float operator()(float x) const {
    return x < 0.0f ? 0.0f : x * x;
  }  // NaN stays NaN
};

// A gate that returns the other half unchanged; the caller multiplies by it.
template <class F>
struct TimesFactor {
  F f;
  __device__ __forceinline__ float operator()(float gate, float factor) const {
    return f(gate) * factor;
  }
};

struct FatRelu {
  float threshold;
  __device__ __forceinline__ float operator()(float gate, float factor) const {
    return (gate <= threshold ? 0.0f : gate) * factor;
  }
};

struct ClampedSilu {
  float limit, alpha, beta;
  __device__ __forceinline__ float operator()(float gate, float factor) const {
    const float g = ClampToMax(gate, limit), u = ClampToMin(ClampToMax(factor, limit), -limit);
    return g * Sigmoid(alpha * g) * (u + beta);
  }
};

// The structs below load the operands of kWidth neighbouring elements of a row.
struct Single {
  template <int kCount, typename T, class F>
  __device__ __forceinline__ void operator()(const T* row, int64_t /*width*/, int64_t i, const F& f,
                                             float (&result)[kCount]) const {
    const Pack<T, kCount> x = LoadPack<kCount>(row + i);
#pragma unroll
    for (int k = 0; k < kCount; ++k) result[k] = f(ToFloat(x.items[k]));
  }
};

struct Halves {
  bool gate_last;
  template <int kCount, typename T, class F>
  __device__ __forceinline__ void operator()(const T* row, int64_t width, int64_t i, const F& f,
                                             float (&result)[kCount]) const {
    const Pack<T, kCount> gate = LoadPack<kCount>(row + i + (gate_last ? width : 0));
    const Pack<T, kCount> factor = LoadPack<kCount>(row + i + (gate_last ? 0 : width));
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      result[k] = f(ToFloat(gate.items[k]), ToFloat(factor.items[k]));
  }
};

struct Pairs {
  template <int kCount, typename T, class F>
  __device__ __forceinline__ void operator()(const T* row, int64_t /*width*/, int64_t i, const F& f,
                                             float (&result)[kCount]) const {
    // Loads packs as long as those of the other layouts, because rows are aligned for that length.
    const Pack<T, kCount> first = LoadPack<kCount>(row + 2 * i),
                          second = LoadPack<kCount>(row + 2 * i + kCount);
    T items[2 * kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      items[k] = first.items[k];
      items[kCount + k] = second.items[k];
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      result[k] = f(ToFloat(items[2 * k]), ToFloat(items[2 * k + 1]));
  }
};

// Converts a result to an element.
template <typename T>
struct Rounded {
  using Out = T;
  __device__ __forceinline__ T operator()(float x) const { return FromFloat<T>(x); }
};
template <class Q>
struct Quantized {
  using Out = Q;
  const float* scale;
  __device__ __forceinline__ Q operator()(float x) const { return ToFp8<Q>(x * (1.0f / *scale)); }
};

// A step computes kCount elements of a row. Blocks iterate over the pieces of a row along x and
// over the rows along y.
template <int kCount, typename T, class Operands, class F, class Finish>
__global__ void __launch_bounds__(kThreads)
    MapRows(Rows out, Rows input, Operands operands, F f, Finish finish) {
  using Out = typename Finish::Out;
  const int64_t steps = out.width / kCount;
  for (int64_t row = blockIdx.y; row < out.count; row += gridDim.y) {
    const T* from = GetRow<const T>(input, row);
    Out* to = GetRow<Out>(out, row);
    for (int64_t step = int64_t{blockIdx.x} * kThreads + threadIdx.x; step < steps;
         step += int64_t{gridDim.x} * kThreads) {
      const int64_t i = step * kCount;
      float result[kCount];
      operands.template operator()<kCount>(from, out.width, i, f, result);
      Pack<Out, kCount> pack;
#pragma unroll
      for (int k = 0; k < kCount; ++k) pack.items[k] = finish(result[k]);
      StorePack(to + i, pack);
    }
  }
}

template <typename T, class Operands, class F, class Finish>
void Map(const char* name, const Rows& out, const Rows& input, Operands operands, F f,
         Finish finish) {
  using Out = typename Finish::Out;
  constexpr int kCount = kPerLoad<T>;
  const bool packed = out.width % kCount == 0 && AreRowsAligned(input, sizeof(T), 16) &&
                      AreRowsAligned(out, sizeof(Out), sizeof(Out) * kCount);
  const int64_t steps = packed ? out.width / kCount : out.width;
  if (packed) {
    Launch(name, &MapRows<kCount, T, Operands, F, Finish>,
           ChooseRowGrid(steps, out.count, kThreads), kThreads, 0, out, input, operands, f, finish);
  } else {
    Launch(name, &MapRows<1, T, Operands, F, Finish>, ChooseRowGrid(steps, out.count, kThreads),
           kThreads, 0, out, input, operands, f, finish);
  }
}

template <class F>
void MapType(const char* name, const Rows& out, const Rows& input, F f) {
  WithType(input.dtype, [&](auto element) {
    using T = decltype(element);
    Map<T>(name, out, input, Single{}, f, Rounded<T>{});
  });
}

template <class F>
void MapGate(const Gate& gate, const Rows& out, const Rows& input, F f) {
  WithType(input.dtype, [&](auto element) {
    using T = decltype(element);
    if (gate.layout == Layout::kInterleaved) {
      Map<T>("activate_and_mul", out, input, Pairs{}, f, Rounded<T>{});
    } else {
      Map<T>("activate_and_mul", out, input, Halves{gate.layout == Layout::kGateLast}, f,
             Rounded<T>{});
    }
  });
}

}  // namespace

void Activate(Activation activation, const Rows& out, const Rows& input) {
  switch (activation) {
    case Activation::kSilu:
      return MapType("silu", out, input, Silu{});
    case Activation::kGelu:
      return MapType("gelu", out, input, Gelu{});
    case Activation::kGeluTanh:
      return MapType("gelu_tanh", out, input, GeluTanh{});
    case Activation::kGeluQuick:
      return MapType("gelu_quick", out, input, GeluQuick{});
    case Activation::kReluSquared:
      return MapType("relu_squared", out, input, ReluSquared{});
  }
}

void ActivateAndMul(const Gate& gate, const Rows& out, const Rows& input) {
  switch (gate.kind) {
    case Gate::kSilu:
      return MapGate(gate, out, input, TimesFactor<Silu>{});
    case Gate::kGelu:
      return MapGate(gate, out, input, TimesFactor<Gelu>{});
    case Gate::kGeluTanh:
      return MapGate(gate, out, input, TimesFactor<GeluTanh>{});
    case Gate::kFatRelu:
      return MapGate(gate, out, input, FatRelu{gate.limit});
    case Gate::kClampedSilu:
      return MapGate(gate, out, input, ClampedSilu{gate.limit, gate.alpha, gate.beta});
  }
}

void ActivateAndQuantize(const Rows& out, QType type, const Rows& input, const float* scale) {
  WithType(input.dtype, [&](auto element) {
    using T = decltype(element);
    if (type == QType::kE4M3) {
      Map<T>("silu_and_mul_quant", out, input, Halves{false}, TimesFactor<Silu>{},
             Quantized<E4M3>{scale});
    } else {
      Map<T>("silu_and_mul_quant", out, input, Halves{false}, TimesFactor<Silu>{},
             Quantized<E5M2>{scale});
    }
  });
}

}  // namespace vllm
