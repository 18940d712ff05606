// SPDX-License-Identifier: Apache-2.0
// What csrc/core/gpu/hopper.h and wgmma.h take from a GPU of compute capability 9.0a elsewhere,
// done as the PTX ISA says it.
//
// What goes on by itself on a GPU happens here as late as it may: a copy when its thread waits or
// has ended, a product of matrices in the wait for it, from what shared memory holds then. A buffer
// that is reused too early gives a wrong result.
//
// Products may read what FenceAsyncProxy has shown them: what its thread has written, to all; what
// others have written, to the warpgroup of the thread. A product that reads anything else, for lack
// of a fence or because a buffer is written again before the product is done, ends the process.
//
// Addresses in shared memory begin at one that is a multiple of 16 and of nothing more, so code has
// to align what it places. What the PTX ISA forbids or leaves undefined ends the process with a
// message: a barrier that was not initialised or is not aligned, a product without FenceProducts
// since the last wait, a product outside of whole warpgroups, products or copies that nobody waits
// for, a descriptor with a swizzle other than 128 bytes or with rows that are not where the swizzle
// wants them, and, as everywhere in the emulation, threads that wait for ever.
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
// sums of 64 rows and `columns` columns; `across`: B lies with its rows along the columns.
void AddProduct(float* sums, int columns, bool bfloat16, bool across, uint64_t a, uint64_t b,
                bool add);

}  // namespace vllm::gpu::emulation
