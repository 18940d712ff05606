// SPDX-License-Identifier: Apache-2.0
// Replaces the instructions of compute capability 9.0a that csrc/core/gpu/hopper.h and wgmma.h use,
// as the PTX ISA defines them.
//
// Asynchronous work happens as late as possible: a copy when its thread waits or has ended, a
// matrix product in the wait for it, with the contents of shared memory at that time. A buffer that
// is reused too early therefore gives a wrong result.
//
// Products may only read memory that FenceAsyncProxy has made visible: for the thread's own writes,
// to all products; for other threads' writes, to the products of the thread's warpgroup. A product
// that reads other memory, because a fence is missing or because a buffer is overwritten before the
// product is done, ends the process.
//
// Shared memory begins at an address that is a multiple of 16 and of no higher power of two, so
// code must align its data. Everything that the PTX ISA forbids or leaves undefined ends the
// process with a message: a barrier that was not initialised or is not aligned, a product without
// FenceProducts since the last wait, a product outside of whole warpgroups, products or copies that
// are never waited for, a descriptor with a swizzle other than 128 bytes or with rows where the
// swizzle does not allow them, and, as everywhere in the emulation, threads that wait forever.
#pragma once

#include <cstdint>

namespace vllm::gpu::emulation {

uint32_t GetSharedAddress(const void* memory);

void StoreShared(uint32_t address, uint32_t value);
void CopyRow16(uint32_t to, const void* from, bool valid);
void ArriveWhenCopied(uint32_t barrier);
void WaitForCopies();

void InitBarrier(uint32_t barrier, int arrivals);
void ArriveOnBarrier(uint32_t barrier);
void WaitForBarrier(uint32_t barrier, uint32_t parity);
void FenceAsyncProxy();

void MeetAtBarrier(int id, int threads);
template <int kId, int kThreads>
void WaitAtNamedBarrier() {
  static_assert(kId >= 1 && kId < 16 && kThreads % 32 == 0);
  MeetAtBarrier(kId, kThreads);
}

void FenceProducts();
void CommitProducts();
void WaitForProducts();
// sums of 64 rows and `columns` columns; `across`: the rows of B are stored along the columns.
void AddProduct(float* sums, int columns, bool bfloat16, bool across, uint64_t a, uint64_t b,
                bool add);

}  // namespace vllm::gpu::emulation
