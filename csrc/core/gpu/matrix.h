// SPDX-License-Identifier: Apache-2.0
// Products of small matrices by a wave of threads: MFMA on CDNA, WMMA on RDNA 3 and 4.
//
// A wave multiplies 16 lines of A by 16 lines of B. Lane l has line l % 16 of both, and 16 elements
// of each of them. Lanes with the same line belong to different groups, which have different
// elements: a product of a wave adds up 16 * kGroups elements of each pair of lines. Which elements
// these are is up to the caller, who must give A and B the same ones.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/gpu/gpu.h"
#include "core/gpu/types.h"

#if defined(VLLM_GPU_EMULATION)
#if VLLM_EMULATED_WAVE == 64
#define VLLM_MATRIX_UNIT 9
#else
#define VLLM_MATRIX_UNIT 12
#endif
#elif defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)
#define VLLM_MATRIX_UNIT 9
#elif defined(__gfx1100__) || defined(__gfx1101__) || defined(__gfx1102__) || \
    defined(__gfx1103__) || defined(__gfx1150__) || defined(__gfx1151__) || defined(__gfx1152__)
#define VLLM_MATRIX_UNIT 11
#elif defined(__gfx1200__) || defined(__gfx1201__)
#define VLLM_MATRIX_UNIT 12
#else
#define VLLM_MATRIX_UNIT 0
#endif

namespace vllm::gpu::matrix {

// Whether the architecture that is compiled for has such instructions. The host's code does not
// depend on it.
inline constexpr bool kAvailable = VLLM_MATRIX_UNIT != 0;

// Threads of a wave, groups of lanes, and elements of the product that a lane has.
inline constexpr int kWave = VLLM_MATRIX_UNIT == 9 ? 64 : 32;
inline constexpr int kGroups = VLLM_MATRIX_UNIT == 9 ? 4 : VLLM_MATRIX_UNIT == 11 ? 1 : 2;
inline constexpr int kResults = VLLM_MATRIX_UNIT == 9 ? 4 : 8;
inline constexpr int kLines = 16;
inline constexpr int kElements = 16;

// A lane's elements of one line.
template <typename T>
struct alignas(16) Operand {
  T items[kElements];
};

// A lane's elements of the product. Element i is that of line GetLine(i) of A and of line Line() of
// B.
struct Product {
  float items[kResults];
};

__device__ __forceinline__ int Line() { return static_cast<int>(threadIdx.x) % kLines; }
__device__ __forceinline__ int Wave() { return static_cast<int>(threadIdx.x) / kWave; }

__device__ __forceinline__ int Half() { return static_cast<int>(threadIdx.x) % kWave / kLines; }
// On RDNA 3, the lanes of both halves of a wave have the same elements.
__device__ __forceinline__ int Group() { return kGroups == 1 ? 0 : Half(); }

__device__ __forceinline__ int GetLine(int result) {
  if constexpr (VLLM_MATRIX_UNIT == 11) return 2 * result + Half();
  return kResults * Half() + result;
}

#if defined(VLLM_GPU_EMULATION)

// As on CDNA with waves of 64 lanes, and as on RDNA 4 with waves of 32. Each lane gets the lines
// that it needs from the lanes that have them.
template <typename T>
void MultiplyAdd(const Operand<T>& a, const Operand<T>& b, Product& sum) {
  for (int group = 0; group < kGroups; ++group) {
    Operand<T> column;
    emulation::Exchange(&b, &column, sizeof(b), static_cast<unsigned>(group * kLines + Line()),
                        kWave);
    for (int result = 0; result < kResults; ++result) {
      // All lanes call Exchange equally often, and those of a group get a line of their own.
      Operand<T> row;
      emulation::Exchange(&a, &row, sizeof(a),
                          static_cast<unsigned>(group * kLines + GetLine(result)), kWave);
      for (int i = 0; i < kElements; ++i)
        sum.items[result] =
            fmaf(ToFloat(row.items[i]), ToFloat(column.items[i]), sum.items[result]);
    }
  }
}

#elif defined(__HIPCC__)

template <typename V, int kCount>
using Vector = V __attribute__((ext_vector_type(kCount)));

// Elements [kFirst, kFirst + kCount) as the type that the instructions take.
template <int kCount, int kFirst, typename T>
__device__ __forceinline__ auto Cut(const Operand<T>& operand) {
  using Element = std::conditional_t<std::is_same_v<T, Fp16>, _Float16, short>;
  Vector<Element, kCount> cut;
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    cut[i] = __builtin_bit_cast(Element, operand.items[kFirst + i].code);
  return cut;
}

#if VLLM_MATRIX_UNIT == 9

template <int kFirst, typename T>
__device__ __forceinline__ Vector<float, 4> MultiplyFour(const Operand<T>& a, const Operand<T>& b,
                                                         Vector<float, 4> sum) {
  if constexpr (std::is_same_v<T, Fp16>) {
    return __builtin_amdgcn_mfma_f32_16x16x16f16(Cut<4, kFirst>(a), Cut<4, kFirst>(b), sum, 0, 0,
                                                 0);
  } else {
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(Cut<4, kFirst>(a), Cut<4, kFirst>(b), sum, 0,
                                                     0, 0);
  }
}

#endif

// Adds the product to `sum`. All lanes of the wave must call it.
template <typename T>
__device__ __forceinline__ void MultiplyAdd([[maybe_unused]] const Operand<T>& a,
                                            [[maybe_unused]] const Operand<T>& b,
                                            [[maybe_unused]] Product& sum) {
#if VLLM_MATRIX_UNIT != 0
  Vector<float, kResults> c;
#pragma unroll
  for (int i = 0; i < kResults; ++i) c[i] = sum.items[i];
#if VLLM_MATRIX_UNIT == 9
  c = MultiplyFour<0>(a, b, c);
  c = MultiplyFour<4>(a, b, c);
  c = MultiplyFour<8>(a, b, c);
  c = MultiplyFour<12>(a, b, c);
#elif VLLM_MATRIX_UNIT == 11
  if constexpr (std::is_same_v<T, Fp16>) {
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(Cut<16, 0>(a), Cut<16, 0>(b), c);
  } else {
    c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(Cut<16, 0>(a), Cut<16, 0>(b), c);
  }
#else
  if constexpr (std::is_same_v<T, Fp16>) {
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(Cut<8, 0>(a), Cut<8, 0>(b), c);
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(Cut<8, 8>(a), Cut<8, 8>(b), c);
  } else {
    c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(Cut<8, 0>(a), Cut<8, 0>(b), c);
    c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(Cut<8, 8>(a), Cut<8, 8>(b), c);
  }
#endif
#pragma unroll
  for (int i = 0; i < kResults; ++i) sum.items[i] = c[i];
#endif
}

#endif

}  // namespace vllm::gpu::matrix
