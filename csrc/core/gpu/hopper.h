// SPDX-License-Identifier: Apache-2.0
// Instructions of compute capability 9.0 and 9.0a: asynchronous copies into shared memory and the
// waits for them, barriers in shared memory, barriers of some threads of a block, and the exchange
// of registers between warpgroups. wgmma.h has the matrix products.
//
// Each function is one PTX instruction; tests/kernels/emulation/hopper_emulation.h implements it on
// the CPU as the PTX ISA specifies. Names in quotes are sections of the PTX ISA.
//
// Shared memory is addressed by numbers of 32 bits. Memory that matrix products read (through the
// "async proxy", "Proxies") is written only with CopyRow16 and StoreShared, so that the emulation
// knows what a fence has made visible to them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/gpu/gpu.h"

#if defined(VLLM_GPU_EMULATION)
#include "hopper_emulation.h"
#endif

namespace vllm::gpu {

inline constexpr int kWarpgroup = 4 * kWarp;

#if defined(VLLM_GPU_EMULATION)

using emulation::ArriveOnBarrier;
using emulation::ArriveWhenCopied;
using emulation::CopyRow16;
using emulation::FenceAsyncProxy;
using emulation::GetSharedAddress;
using emulation::InitBarrier;
using emulation::StoreShared;
using emulation::WaitAtNamedBarrier;
using emulation::WaitForBarrier;
using emulation::WaitForCopies;
template <int kRegisters>
void RaiseRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}
template <int kRegisters>
void LowerRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}
inline float Exp2(float x) { return std::exp2(x); }

#else

__device__ __forceinline__ uint32_t GetSharedAddress(const void* memory) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(memory));
}

// An ordinary store; a function so that the emulation sees it.
__device__ __forceinline__ void StoreShared(uint32_t address, uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

// Copies 16 bytes of global memory into shared memory asynchronously. If `valid` is false, it
// writes zeros and reads nothing ("cp.async", a src-size of 0). Both addresses are multiples of 16.
__device__ __forceinline__ void CopyRow16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

// Arrives at a barrier when all copies that this thread has started are complete
// ("cp.async.mbarrier.arrive"). With .noinc, this is one of the arrivals for which the barrier was
// initialised.
__device__ __forceinline__ void ArriveWhenCopied(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Waits for all copies that this thread has started; a thread must not exit before they complete
// ("cp.async.wait_all").
__device__ __forceinline__ void WaitForCopies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Initialises a barrier of 8 bytes in shared memory ("mbarrier"). A phase ends when `arrivals`
// threads have arrived, and then the next begins. Other threads may use it after a barrier of the
// block.
__device__ __forceinline__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Everything that this thread did before is visible to the threads that have waited.
__device__ __forceinline__ void ArriveOnBarrier(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Waits for the end of the phase whose number has this parity. The phase before the first one
// counts as complete: parity 1 returns at once.
__device__ __forceinline__ void WaitForBarrier(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Everything that this thread has written to shared memory, or seen others write, becomes visible
// to the matrix products that it, or a thread that it signals, starts later ("membar / fence",
// fence.proxy.async).
__device__ __forceinline__ void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Waits until kThreads threads, a multiple of a warp, have reached barrier kId ("bar.sync").
// Barrier 0 is that of __syncthreads.
template <int kId, int kThreads>
__device__ __forceinline__ void WaitAtNamedBarrier() {
  static_assert(kId >= 1 && kId < 16 && kThreads % kWarp == 0);
  asm volatile("bar.sync %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}

// Each thread of a warpgroup acquires or releases registers until it has this many ("setmaxnreg";
// 9.0a).
template <int kRegisters>
__device__ __forceinline__ void RaiseRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void LowerRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// 2^x with an error of two units in the last place. Results below 2^-126 are zero ("ex2",
// .approx.ftz).
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

}  // namespace vllm::gpu
