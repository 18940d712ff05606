// SPDX-License-Identifier: Apache-2.0
#include "distributed/custom_all_reduce.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/gpu/launch.h"
#include "core/gpu/signal.h"
#include "core/gpu/types.h"

namespace vllm {
namespace {

using namespace gpu;

constexpr int kThreads = 512;
// More blocks do not use the links better, and take resources from other kernels.
constexpr int kMaxBlocks = 36;

// The signals of one rank, in its shared buffer. Blocks of the same number on all ranks wait for
// each other, independently of other blocks.
struct alignas(128) Signals {
  uint32_t arrived[kMaxBlocks]
                  [kMaxRanks];  // by rank, the last round in which its block has arrived here
  uint32_t round[kMaxBlocks];   // the last round of this rank's block; used only by this rank
};

struct AllSignals {
  Signals* of[kMaxRanks];
};
struct Buffers {
  const void* at[kMaxRanks];
};

// Waits until this block has reached `round` on all ranks. Their threads' earlier writes are then
// visible.
template <int kRanks>
__device__ __forceinline__ void WaitForAllRanks(const AllSignals& all, int rank, uint32_t round) {
  ReleaseWrites();
  __syncthreads();
  if (threadIdx.x < kRanks) {
    StoreRelease(&all.of[threadIdx.x]->arrived[blockIdx.x][rank], round);
    const uint32_t* other = &all.of[rank]->arrived[blockIdx.x][threadIdx.x];
    // A block that has arrived may already be in the next round.
    while (static_cast<int32_t>(LoadAcquire(other) - round) < 0) {
    }
  }
  __syncthreads();
}

// Returns the sum over the ranks of the i-th 16 bytes, in the order of ranks.
template <typename T, int kRanks>
__device__ __forceinline__ Pack<T, kPerLoad<T>> SumRanks(const Buffers& buffers, int64_t i) {
  constexpr int kCount = kPerLoad<T>;
  Pack<T, kCount> packs[kRanks];
#pragma unroll
  for (int r = 0; r < kRanks; ++r)
    packs[r] = LoadPack<kCount>(static_cast<const T*>(buffers.at[r]) + i * kCount);
  Pack<T, kCount> result;
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    float sum = ToFloat(packs[0].items[k]);
#pragma unroll
    for (int r = 1; r < kRanks; ++r) sum += ToFloat(packs[r].items[k]);
    result.items[k] = FromFloat<T>(sum);
  }
  return result;
}

template <typename T, int kRanks>
__global__ void __launch_bounds__(kThreads, 1)
    ReduceWhole(const Buffers* addresses, AllSignals all, T* out, int rank, int64_t packs) {
  constexpr int kCount = kPerLoad<T>;
  const Buffers buffers = *addresses;
  const uint32_t round = all.of[rank]->round[blockIdx.x];
  WaitForAllRanks<kRanks>(all, rank, round + 1);
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < packs;
       i += int64_t{gridDim.x} * kThreads) {
    StorePack(out + i * kCount, SumRanks<T, kRanks>(buffers, i));
  }
  // No rank may write the next tensor into a buffer that others still read.
  WaitForAllRanks<kRanks>(all, rank, round + 2);
  if (threadIdx.x == 0) all.of[rank]->round[blockIdx.x] = round + 2;
}

template <typename T, int kRanks>
__global__ void __launch_bounds__(kThreads, 1)
    ReduceParts(const Buffers* addresses, AllSignals all, T* out, int rank, int64_t packs) {
  constexpr int kCount = kPerLoad<T>;
  const Buffers buffers = *addresses;
  const uint32_t round = all.of[rank]->round[blockIdx.x];
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x,
                step = int64_t{gridDim.x} * kThreads;
  // Rank r sums the packs from r * part on; the last rank also sums the remainder.
  const int64_t part = packs / kRanks, last = packs - (kRanks - 1) * part;
  const auto scratch = [&](int r) { return reinterpret_cast<T*>(all.of[r] + 1); };
  WaitForAllRanks<kRanks>(all, rank, round + 1);
  const int64_t mine = rank == kRanks - 1 ? last : part;
  for (int64_t i = first; i < mine; i += step)
    StorePack(scratch(rank) + i * kCount, SumRanks<T, kRanks>(buffers, rank * part + i));
  WaitForAllRanks<kRanks>(all, rank, round + 2);
  // A thread gathers the sums of the threads with the same number on the other ranks: it is their
  // writes that the barrier has made visible.
  for (int64_t i = first; i < last; i += step) {
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r == kRanks - 1 || i < part)
        StorePack(out + (r * part + i) * kCount, LoadPack<kCount>(scratch(r) + i * kCount));
    }
  }
  // No rank may sum the next tensor into memory that others still read.
  WaitForAllRanks<kRanks>(all, rank, round + 3);
  if (threadIdx.x == 0) all.of[rank]->round[blockIdx.x] = round + 3;
}

// Returns whether every rank reads whole tensors of this size. Reading parts moves fewer bytes but
// waits once more.
bool ShouldReadWhole(int ranks, int64_t bytes) {
  return ranks == 2 || bytes < (ranks <= 4 ? 512 : 256) * int64_t{1024};
}

template <int kRanks>
void LaunchForDType(const Buffers* addresses, const AllSignals& all, void* out, int rank,
                    DType dtype, int64_t bytes) {
  const int64_t packs = bytes / 16;
  const dim3 blocks(
      static_cast<unsigned>(std::min<int64_t>((packs + kThreads - 1) / kThreads, kMaxBlocks)));
  WithType(dtype, [&](auto element) {
    using T = decltype(element);
    const auto kernel =
        ShouldReadWhole(kRanks, bytes) ? &ReduceWhole<T, kRanks> : &ReduceParts<T, kRanks>;
    Launch("all_reduce", kernel, blocks, kThreads, 0, addresses, all, static_cast<T*>(out), rank,
           packs);
  });
}

}  // namespace

int64_t GetCustomAllReduceMetaSize() { return sizeof(Signals); }

CustomAllReduce::CustomAllReduce(std::vector<void*> shared, void* records, int64_t records_bytes,
                                 int rank, bool fully_connected)
    : shared_(std::move(shared)),
      records_(static_cast<Record*>(records)),
      capacity_(records_bytes / static_cast<int64_t>(sizeof(Record))),
      rank_(rank),
      fully_connected_(fully_connected) {}

// Returns memory for `count` records after those in use.
CustomAllReduce::Record* CustomAllReduce::GetNextRecords(int64_t count) {
  if (used_ + count > capacity_) {
    throw std::runtime_error("rank_data has room for " + std::to_string(capacity_) + " buffers, " +
                             std::to_string(used_) + " are registered and " +
                             std::to_string(count) +
                             " are to be added, expected a larger rank_data");
  }
  return records_ + used_;
}

void CustomAllReduce::RegisterBuffer(const std::vector<void*>& buffers) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!captured_.empty())
    throw std::runtime_error(
        "register_graph_buffers must follow the capture, before another buffer is registered");
  Record record{};
  std::copy(buffers.begin(), buffers.end(), record.at);
  Record* at = GetNextRecords(1);
  CopyToDevice(at, &record, sizeof(record));
  registered_[buffers[static_cast<size_t>(rank_)]] = at;
  ++used_;
}

const CustomAllReduce::Record* CustomAllReduce::FindRecord(const void* in) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (IsCapturing()) {
    // A captured call gets a record even for a registered buffer, because another buffer may be
    // registered at that address when the graph runs.
    const Record* at =
        GetNextRecords(static_cast<int64_t>(captured_.size()) + 1) + captured_.size();
    captured_.push_back(in);
    return at;
  }
  const auto found = registered_.find(in);
  if (found == registered_.end()) {
    throw std::runtime_error(
        "all_reduce: inp is in no registered buffer, expected a buffer from register_buffer, a "
        "reg_buffer, or a stream that is capturing");
  }
  return found->second;
}

void CustomAllReduce::Reduce(void* out, const void* in, DType dtype, int64_t bytes) {
  if (ranks() > 2 && !fully_connected_) {
    throw std::runtime_error(
        "all_reduce: " + std::to_string(ranks()) +
        " GPUs that are not fully connected, expected two GPUs or a link between every two");
  }
  if (bytes == 0) return;
  const auto* addresses = reinterpret_cast<const Buffers*>(FindRecord(in));
  AllSignals all{};
  for (int r = 0; r < ranks(); ++r)
    all.of[r] = static_cast<Signals*>(shared_[static_cast<size_t>(r)]);
  switch (ranks()) {
    case 2:
      return LaunchForDType<2>(addresses, all, out, rank_, dtype, bytes);
    case 4:
      return LaunchForDType<4>(addresses, all, out, rank_, dtype, bytes);
    case 6:
      return LaunchForDType<6>(addresses, all, out, rank_, dtype, bytes);
    default:
      return LaunchForDType<8>(addresses, all, out, rank_, dtype, bytes);
  }
}

std::pair<std::vector<unsigned char>, std::vector<int64_t>> CustomAllReduce::GetGraphBuffers() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<unsigned char> handles;
  std::vector<int64_t> offsets;
  for (const void* buffer : captured_) {
    const auto [handle, offset] = ExportShared(buffer);
    handles.insert(handles.end(), handle.begin(), handle.end());
    offsets.push_back(offset);
  }
  return {handles, offsets};
}

void CustomAllReduce::RegisterGraphBuffers(const std::vector<std::vector<unsigned char>>& handles,
                                           const std::vector<std::vector<int64_t>>& offsets) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t count = captured_.size();
  for (size_t r = 0; r < shared_.size(); ++r) {
    if (handles[r].size() != count * kShareHandleBytes || offsets[r].size() != count) {
      throw std::runtime_error("register_graph_buffers: rank " + std::to_string(r) +
                               " has captured " + std::to_string(offsets[r].size()) +
                               " reductions and this one " + std::to_string(count) +
                               ", expected the same on all ranks");
    }
  }
  std::vector<Record> records(count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t r = 0; r < shared_.size(); ++r) {
      if (static_cast<int>(r) == rank_) {
        records[i].at[r] = captured_[i];
        continue;
      }
      ShareHandle handle;
      std::memcpy(handle.data(), handles[r].data() + i * kShareHandleBytes, kShareHandleBytes);
      auto opened = opened_.find(handle);
      if (opened == opened_.end()) opened = opened_.emplace(handle, OpenShared(handle)).first;
      records[i].at[r] = static_cast<const char*>(opened->second) + offsets[r][i];
    }
  }
  if (count != 0)
    CopyToDevice(GetNextRecords(static_cast<int64_t>(count)), records.data(),
                 count * sizeof(Record));
  used_ += static_cast<int64_t>(count);
  captured_.clear();
}

}  // namespace vllm
