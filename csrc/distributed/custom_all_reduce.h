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

// Returns the number of bytes at the beginning of each rank's shared buffer that the ranks use to
// synchronise. The rest is scratch memory: for more than 2 ranks, as many bytes as the largest
// tensor has.
int64_t GetCustomAllReduceMetaSize();

// Sums a tensor over the GPUs of one machine, in a kernel that reads the memory of the other GPUs,
// without a library of collectives. It is meant for tensors of up to a few megabytes, for which
// starting such a library takes longer than the transfer.
//
// Small tensors are read whole from every rank. For larger ones, each rank sums a part, and then
// every rank reads all parts. All ranks add in the same order, in float32, so their results are
// bit-identical. All ranks must call the same functions in the same order.
class CustomAllReduce {
 public:
  // `shared` are the ranks' shared buffers as mapped in this process. `records` is memory on this
  // GPU for the addresses of registered buffers. `fully_connected` says that every two GPUs have a
  // direct link.
  CustomAllReduce(std::vector<void*> shared, void* records, int64_t records_bytes, int rank,
                  bool fully_connected);

  // Registers buffers of the same size, one for each rank, as mapped in this process. Tensors that
  // are reduced later must be in a registered buffer.
  void RegisterBuffer(const std::vector<void*>& buffers);

  // out[i] = sum over the ranks of in[i]. `in` is in this rank's registered buffer, or the stream
  // is capturing; RegisterGraphBuffers then registers the ranks' buffers before the graph runs.
  // `bytes` and both addresses are multiples of 16.
  //
  // Throws std::runtime_error if `in` is not registered or the launch fails.
  void Reduce(void* out, const void* in, DType dtype, int64_t bytes);

  // Returns, for the buffers of captured reductions that are not yet registered, the concatenated
  // handles of their allocations, and their offsets in these.
  std::pair<std::vector<unsigned char>, std::vector<int64_t>> GetGraphBuffers();

  // Registers the results of GetGraphBuffers of all ranks, in the order of ranks.
  void RegisterGraphBuffers(const std::vector<std::vector<unsigned char>>& handles,
                            const std::vector<std::vector<int64_t>>& offsets);

  int ranks() const { return static_cast<int>(shared_.size()); }

 private:
  struct Record {
    const void* at[kMaxRanks];
  };

  Record* GetNextRecords(int64_t count);
  const Record* FindRecord(const void* in);

  std::vector<void*> shared_;
  Record* records_;
  int64_t capacity_;
  int rank_;
  bool fully_connected_;

  std::mutex mutex_;
  int64_t used_ = 0;  // records that are filled in
  std::unordered_map<const void*, const Record*> registered_;
  std::vector<const void*> captured_;  // their records come after the used ones, in this order
  std::map<gpu::ShareHandle, void*> opened_;  // an allocation can be opened only once in a process
};

}  // namespace vllm
