// SPDX-License-Identifier: Apache-2.0
// Matrix products by a warpgroup: wgmma of compute capability 9.0a (PTX ISA, "Asynchronous
// Warpgroup Level Matrix Multiply-Accumulate Operation").
//
// The instructions are asynchronous. Call FenceProducts before the first one and whenever other
// instructions have accessed the accumulators, CommitProducts after the last one, and
// WaitForProducts before the accumulators are read or the operands are overwritten. All threads of
// a warpgroup call all of them together.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/gpu/hopper.h"
#include "core/gpu/types.h"

namespace vllm::gpu {

// Returns the descriptor of a matrix of 16-bit elements in shared memory. Its 128-byte rows are in
// groups of eight that begin at multiples of 1024 bytes. The 16-byte pieces of row r are permuted:
// piece p is at the place of piece p ^ (r % 8) ("Shared Memory Matrix Layout", 128-byte swizzling).
// Consecutive groups of eight rows are `group_bytes` apart. If rows run along the summed dimension
// (K-major), nothing more is needed. If they run along the other dimension, a row has 64 elements
// of it, and the next 64 are `column_bytes` further on.
//
// "Matrix Descriptor Format" and "Strides": bits 0-13 are the address, 16-29 the leading-dimension
// byte offset, 32-45 the stride byte offset, each divided by 16; 49-51 the base offset, 0 at these
// alignments; 62-63 the swizzle, 1 for 128 bytes.
__device__ __forceinline__ uint64_t MakeSwizzledDescriptor(uint32_t address, uint32_t group_bytes,
                                                           uint32_t column_bytes = 16) {
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) |
         static_cast<uint64_t>(column_bytes >> 4) << 16 |
         static_cast<uint64_t>(group_bytes >> 4) << 32 | uint64_t{1} << 62;
}

// Returns the offset in bytes of 16-byte piece `piece` of row `row` in such rows.
__device__ __forceinline__ uint32_t GetSwizzledOffset(int row, int piece) {
  return static_cast<uint32_t>(row * 128 + ((piece ^ (row & 7)) * 16));
}

// The direction of the rows of B: along the summed dimension, or along the other one.
enum class Rows128 { kAlongSum, kAcross };

// The row and the column of a thread's accumulators in the 64 rows and kN columns of the result
// ("Register Fragments for wgmma.mma_async.m64nNk16", matrix D).
__device__ __forceinline__ int GetAccumulatorRow(int i) {
  return static_cast<int>(threadIdx.x) % kWarpgroup / kWarp * 16 + Lane() / 4 + i / 2 % 2 * 8;
}
__device__ __forceinline__ int GetAccumulatorColumn(int i) {
  return i / 4 * 8 + Lane() % 4 * 2 + i % 2;
}

#if defined(VLLM_GPU_EMULATION)

inline void FenceProducts() { emulation::FenceProducts(); }
inline void CommitProducts() { emulation::CommitProducts(); }
template <int kCount>
void WaitForProducts(float (&)[kCount]) {
  emulation::WaitForProducts();
}
template <typename T, Rows128 kB, int kCount>
void AddProduct(float (&sums)[kCount], uint64_t a, uint64_t b, bool add) {
  emulation::AddProduct(sums, 2 * kCount, std::is_same_v<T, Bf16>, kB == Rows128::kAcross, a, b,
                        add);
}

#else

__device__ __forceinline__ void FenceProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits for all committed products. `sums` are their accumulators, which the compiler must not
// access earlier.
template <int kCount>
__device__ __forceinline__ void WaitForProducts(float (&sums)[kCount]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define VLLM_SUMS_4(i) \
  "+f"(sums[(i)]), "+f"(sums[(i) + 1]), "+f"(sums[(i) + 2]), "+f"(sums[(i) + 3])
#define VLLM_SUMS_16(i) \
  VLLM_SUMS_4(i), VLLM_SUMS_4((i) + 4), VLLM_SUMS_4((i) + 8), VLLM_SUMS_4((i) + 12)
#define VLLM_PRODUCT_64(type, across)                                                  \
  asm volatile(                                                                        \
      "{\n"                                                                            \
      ".reg .pred more;\n"                                                             \
      "setp.ne.b32 more, %34, 0;\n"                                                    \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                      \
      " {"                                                                             \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "         \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
      "}, %32, %33, more, 1, 1, 0, " across                                            \
      ";\n"                                                                            \
      "}\n"                                                                            \
      : VLLM_SUMS_16(0), VLLM_SUMS_16(16)                                              \
      : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define VLLM_PRODUCT_256(type, across)                                                             \
  asm volatile(                                                                                    \
      "{\n"                                                                                        \
      ".reg .pred more;\n"                                                                         \
      "setp.ne.b32 more, %130, 0;\n"                                                               \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                 \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "           \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "           \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "           \
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "           \
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "           \
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "     \
      "%111, "                                                                                     \
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
      "%127"                                                                                       \
      "}, %128, %129, more, 1, 1, 0, " across                                                      \
      ";\n"                                                                                        \
      "}\n"                                                                                        \
      : VLLM_SUMS_16(0), VLLM_SUMS_16(16), VLLM_SUMS_16(32), VLLM_SUMS_16(48), VLLM_SUMS_16(64),   \
        VLLM_SUMS_16(80), VLLM_SUMS_16(96), VLLM_SUMS_16(112)                                      \
      : "l"(a), "l"(b), "r"(static_cast<int>(add)))

// sums = A B, or sums + A B if `add` is set. A has 64 rows by 16, K-major, and B has 16 rows by 2 *
// kCount; both are in shared memory ("wgmma.mma_async").
template <typename T, Rows128 kB, int kCount>
__device__ __forceinline__ void AddProduct(float (&sums)[kCount], uint64_t a, uint64_t b,
                                           bool add) {
  static_assert(kCount == 32 || kCount == 128);
  static_assert(std::is_same_v<T, Bf16> || std::is_same_v<T, Fp16>);
#define VLLM_PRODUCT_(columns, across)      \
  if constexpr (std::is_same_v<T, Bf16>) {  \
    VLLM_PRODUCT_##columns("bf16", across); \
  } else {                                  \
    VLLM_PRODUCT_##columns("f16", across);  \
  }
  if constexpr (kCount == 32 && kB == Rows128::kAlongSum) {
    VLLM_PRODUCT_(64, "0")
  } else if constexpr (kCount == 32) {
    VLLM_PRODUCT_(64, "1")
  } else if constexpr (kB == Rows128::kAlongSum) {
    VLLM_PRODUCT_(256, "0")
  } else {
    VLLM_PRODUCT_(256, "1")
  }
#undef VLLM_PRODUCT_
}

#undef VLLM_SUMS_4
#undef VLLM_SUMS_16
#undef VLLM_PRODUCT_64
#undef VLLM_PRODUCT_256

#endif

}  // namespace vllm::gpu
