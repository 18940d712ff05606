// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/dtype.h"
#include "core/gpu/shared_memory.h"

namespace vllm {

inline constexpr int kMaxRanks = 8;

// Bytes at the begin of each rank's shared buffer that the ranks tell one another by where they
// are. What follows is scratch memory: for world sizes above 2 as many bytes as the largest tensor
// has.
int64_t CustomAllReduceMetaSize();

// Sums a tensor over the GPUs of one machine by reading the others' memory, in a kernel and without
// a library of collectives: for tensors of up to a few megabytes, where the start of such a library
// takes longer than the transfer.
//
// Small tensors are read whole from every rank; of larger ones each rank sums a part, and then
// everybody reads all parts. All ranks add in the same order, in float32, so their results are the
// same bits. All ranks call the same functions in the same order.
class CustomAllReduce {
 public:
  // `shared` are the ranks' shared buffers as this process sees them. `records` is memory on this
  // GPU, for the addresses of registered buffers. `fully_connected`: every two GPUs have a link of
  // their own.
  CustomAllReduce(std::vector<void*> shared, void* records, int64_t records_bytes, int rank,
                  bool fully_connected);

  // Buffers of the same size, one of each rank, as this process sees them: what is reduced later
  // lies in such.
  void RegisterBuffer(const std::vector<void*>& buffers);

  // out[i] = sum over the ranks of in[i]. `in` is this rank's buffer of those registered, or the
  // stream is capturing: then the others' are registered with RegisterGraphBuffers before the graph
  // runs. `bytes` is a multiple of 16, both addresses as well.
  //
  // Throws std::runtime_error when `in` is not registered, or the launch fails.
  void Reduce(void* out, const void* in, DType dtype, int64_t bytes);

  // Of the buffers that captured reductions have used and that are not registered yet: the handles
  // of their allocations, side by side, and their distances from those.
  std::pair<std::vector<unsigned char>, std::vector<int64_t>> GraphBuffers();

  // What GraphBuffers gave on each rank, in the order of ranks.
  void RegisterGraphBuffers(const std::vector<std::vector<unsigned char>>& handles,
                            const std::vector<std::vector<int64_t>>& offsets);

  int ranks() const { return static_cast<int>(shared_.size()); }

 private:
  struct Record {
    const void* at[kMaxRanks];
  };

  Record* NextRecords(int64_t count);
  const Record* RecordOf(const void* in);

  std::vector<void*> shared_;
  Record* records_;
  int64_t capacity_;
  int rank_;
  bool fully_connected_;

  std::mutex mutex_;
  int64_t used_ = 0;  // records that are filled in
  std::unordered_map<const void*, const Record*> registered_;
  std::vector<const void*> captured_;  // their records come after the used ones, in this order
  std::map<gpu::ShareHandle, void*> opened_;  // an allocation can be opened once a process
};

}  // namespace vllm
