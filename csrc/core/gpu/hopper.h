// SPDX-License-Identifier: Apache-2.0
// Instructions of compute capability 9.0 and of 9.0a by name, with what waits for them: copies into
// shared memory that go on by themselves, barriers in shared memory, barriers of some threads of a
// block, and registers that warpgroups hand one another. wgmma.h has the products of matrices.
//
// Each function is one instruction of PTX; tests/kernels/emulation/hopper_emulation.h does on the
// CPU what the PTX ISA says of it. Names in quotes are sections of the PTX ISA.
//
// Shared memory is spoken of by address, a number of 32 bits. Memory that matrix products read (the
// "async proxy", "Proxies") is written with CopyRow16 and StoreShared alone, so that the emulation
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
using emulation::InitBarrier;
using emulation::NamedBarrier;
using emulation::SharedAddress;
using emulation::StoreShared;
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

__device__ __forceinline__ uint32_t SharedAddress(const void* memory) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(memory));
}

// Stores as any store does; named so that the emulation sees it.
__device__ __forceinline__ void StoreShared(uint32_t address, uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

// Copies 16 bytes of global memory into shared memory, some time later; zeros when not `valid`, and
// then nothing is read ("cp.async", a src-size of 0). Both addresses are multiples of 16.
__device__ __forceinline__ void CopyRow16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

// Arrives on a barrier when all copies that this thread has begun are done
// ("cp.async.mbarrier.arrive"). With .noinc it is one of the arrivals that the barrier was
// initialised for.
__device__ __forceinline__ void ArriveWhenCopied(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Waits for all copies that this thread has begun, which it does not end before
// ("cp.async.wait_all").
__device__ __forceinline__ void WaitForCopies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// A barrier of 8 bytes in shared memory ("mbarrier"): a phase ends when `arrivals` threads have
// arrived, and the next begins. Others may use it behind a barrier of the block.
__device__ __forceinline__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// What this thread has done before is seen by those who have waited.
__device__ __forceinline__ void ArriveOnBarrier(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Waits for the end of the phase whose number has this parity. The phase before the first one
// counts as ended: parity 1 passes at once.
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

// What this thread has written to shared memory, and what it has seen others write, comes before
// products of matrices that are begun by it, or by those it signals, later on ("membar / fence",
// fence.proxy.async).
__device__ __forceinline__ void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Waits until `threads` threads, a multiple of a warp, have come to barrier kId ("bar.sync").
// Barrier 0 is __syncthreads'.
template <int kId, int kThreads>
__device__ __forceinline__ void NamedBarrier() {
  static_assert(kId >= 1 && kId < 16 && kThreads % kWarp == 0);
  asm volatile("bar.sync %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}

// All threads of a warpgroup take or give up registers, to this many each ("setmaxnreg"; 9.0a).
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

// 2^x, with an error of two units in the last place; results below 2^-126 are zero ("ex2",
// .approx.ftz).
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

}  // namespace vllm::gpu
