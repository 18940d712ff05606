// SPDX-License-Identifier: Apache-2.0
#include "hopper_emulation.h"

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "gpu_emulation.h"

namespace vllm::gpu::emulation {
namespace {

constexpr unsigned kWarpgroup = 128;
// Address of shared memory; only its last four bits are zero.
constexpr uint32_t kBase = 0x490;
constexpr unsigned kPiece = 16;
constexpr int kDepth = 16;      // of A
constexpr unsigned kLate = 24;  // rounds of all threads
constexpr int kPending = 20;    // bits of a barrier's count

// A barrier's eight bytes.
struct Barrier {
  uint32_t arrivals = 0;
  uint32_t left_and_phase = 0;
};

struct Product {
  float* sums;
  int columns;
  bool bfloat16, across;
  uint64_t a, b;
  bool add;
};

// Asynchronous work that a thread has begun: a copy, or an arrival after copies.
struct Begun {
  uint32_t to = 0;
  const void* from = nullptr;  // null: zeros
  bool arrival = false;
};

struct ThreadState {
  std::deque<Begun> begun;
  std::vector<uint32_t> written;  // pieces without a later fence of this thread
  std::vector<Product> open;
  std::deque<std::vector<Product>> committed;
  bool fenced = false;
  unsigned waits = 0;
};

struct Meeting {
  int arrived = 0;
  unsigned round = 0;
};

class State final : public Asynchronous {
 public:
  State(unsigned char* shared, size_t size, unsigned thread_count)
      : shared_(shared), size_(size), threads(thread_count) {
    const std::vector<bool> all(size / kPiece + 1, false);
    hidden_.assign((thread_count + kWarpgroup - 1) / kWarpgroup, all);
    hidden_pieces_.resize(hidden_.size());
  }

  bool Step() override {
    bool any = false;
    for (unsigned thread = 0; thread < threads.size(); ++thread) {
      auto& begun = threads[thread].begun;
      bool arrived = false;
      while (!begun.empty() && !arrived) {
        const Begun next = begun.front();
        begun.pop_front();
        any = true;
        arrived = next.arrival;
        if (next.arrival) {
          Arrive(next.to);
        } else {
          Copy(thread, next);
        }
      }
    }
    return any;
  }

  void Ended(unsigned thread) override {
    const ThreadState& ended = threads[thread];
    if (!ended.begun.empty()) Fail("a thread ended before its copies");
    if (!ended.open.empty() || !ended.committed.empty())
      Fail("a thread ended without waiting for its products");
  }

  // The bytes of shared memory at an address.
  unsigned char* At(uint32_t address, size_t bytes) { return shared_ + Offset(address, bytes); }
  // The same bytes, as a product of a warpgroup reads them.
  const unsigned char* Seen(unsigned warpgroup, uint32_t address, size_t bytes) const {
    const size_t offset = Offset(address, bytes);
    if (hidden_[warpgroup][offset / kPiece]) {
      Fail(
          "a product reads what was written behind the last FenceAsyncProxy: there is none, or it "
          "was written too early");
    }
    return shared_ + offset;
  }

  void Wrote(unsigned thread, uint32_t address, size_t bytes) {
    const auto piece = static_cast<uint32_t>(Offset(address, bytes) / kPiece);
    threads[thread].written.push_back(piece);
    for (size_t warpgroup = 0; warpgroup < hidden_.size(); ++warpgroup) {
      hidden_[warpgroup][piece] = true;
      hidden_pieces_[warpgroup].push_back(piece);
    }
  }

  void Fence(unsigned thread) {
    for (const uint32_t piece : threads[thread].written) {
      for (auto& hidden : hidden_) hidden[piece] = false;
    }
    threads[thread].written.clear();
    const unsigned mine = thread / kWarpgroup;
    for (const uint32_t piece : hidden_pieces_[mine]) hidden_[mine][piece] = false;
    hidden_pieces_[mine].clear();
  }

  Barrier& BarrierAt(uint32_t address) {
    if (barriers_.count(address) == 0) Fail("a barrier in shared memory was not initialised");
    return *reinterpret_cast<Barrier*>(At(address, sizeof(Barrier)));
  }

  void Init(uint32_t address, int arrivals) {
    if (address % sizeof(Barrier) != 0) Fail("a barrier in shared memory is not aligned");
    if (arrivals < 1 || arrivals >= 1 << kPending) Fail("no barrier takes so many arrivals");
    const Barrier barrier{static_cast<uint32_t>(arrivals), static_cast<uint32_t>(arrivals)};
    std::memcpy(At(address, sizeof(barrier)), &barrier, sizeof(barrier));
    barriers_[address] = true;
  }

  void Arrive(uint32_t address) {
    Barrier& barrier = BarrierAt(address);
    --barrier.left_and_phase;
    if ((barrier.left_and_phase & ((1u << kPending) - 1)) == 0) {
      const uint32_t phase = barrier.left_and_phase >> kPending;
      barrier.left_and_phase = ((phase ^ 1) << kPending) | barrier.arrivals;
    }
    SomethingHappened();
  }

  bool Ended(uint32_t address, uint32_t parity) {
    return BarrierAt(address).left_and_phase >> kPending != parity;
  }

 private:
  size_t Offset(uint32_t address, size_t bytes) const {
    if (address < kBase || address - kBase + bytes > size_)
      Fail("an address outside of shared memory");
    return address - kBase;
  }

  void Copy(unsigned thread, const Begun& copy) {
    unsigned char* to = At(copy.to, kPiece);
    if (copy.from == nullptr) {
      std::memset(to, 0, kPiece);
    } else {
      std::memcpy(to, copy.from, kPiece);
    }
    Wrote(thread, copy.to, kPiece);
  }

  unsigned char* shared_;
  size_t size_;
  // For each warpgroup, the pieces that its products must not read yet; the list has the numbers of
  // some of them.
  std::vector<std::vector<bool>> hidden_;
  std::vector<std::vector<uint32_t>> hidden_pieces_;
  std::map<uint32_t, bool> barriers_;

 public:
  std::vector<ThreadState> threads;
  std::map<int, Meeting> meetings;
};

State& Here() {
  std::unique_ptr<Asynchronous>& state = AsynchronousOfBlock();
  if (state == nullptr) {
    const auto [memory, size] = SharedMemory();
    state = std::make_unique<State>(memory, size, blockDim.x);
  }
  return static_cast<State&>(*state);
}

ThreadState& Mine() { return Here().threads[threadIdx.x]; }

// Addresses of a descriptor's matrix: element `along` of row `across`, or vice versa for a
// transposed matrix. See "Matrix Descriptor Format".
class Matrix {
 public:
  Matrix(uint64_t descriptor, bool across)
      : start_(Field(descriptor, 0)),
        column_bytes_(Field(descriptor, 16)),
        group_bytes_(Field(descriptor, 32)),
        across_(across) {
    if (descriptor >> 62 != 1) Fail("a matrix descriptor without the 128-byte swizzle");
    // The swizzle takes the row from the address. The first of eight rows must therefore be where
    // the address gives row 0, unless there is a base offset.
    if ((descriptor >> 49 & 7) != 0 || (start_ >> 7 & 7) != 0)
      Fail("a matrix descriptor whose rows do not begin at a multiple of 1024 bytes");
    if (group_bytes_ % 1024 != 0 || (across && column_bytes_ % 1024 != 0))
      Fail("a matrix descriptor whose groups are no multiples of 1024 bytes apart");
  }

  // For A and B: `i` is the row or column, `k` the index of the sum.
  uint32_t Address(int i, int k) const {
    const int row = across_ ? k : i, along = across_ ? i : k;
    const auto logical = static_cast<uint32_t>(row / 8) * group_bytes_ +
                         static_cast<uint32_t>(row % 8) * 128 + start_ +
                         static_cast<uint32_t>(along / 64) * column_bytes_ +
                         static_cast<uint32_t>(along % 64) * 2;
    return logical ^ ((logical >> 7 & 7) << 4);
  }

 private:
  static uint32_t Field(uint64_t descriptor, int bit) {
    return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4;
  }

  uint32_t start_, column_bytes_, group_bytes_;
  bool across_;
};

float ElementAt(const State& state, unsigned warpgroup, uint32_t address, bool bfloat16) {
  uint16_t code;
  std::memcpy(&code, state.Seen(warpgroup, address, sizeof(code)), sizeof(code));
  if (!bfloat16) return FloatOfHalf(code);
  const uint32_t bits = static_cast<uint32_t>(code) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Computes this thread's part of the result. See "Register Fragments for
// wgmma.mma_async.m64nNk16".
void Compute(const Product& product) {
  const State& state = Here();
  const unsigned warpgroup = threadIdx.x / kWarpgroup, lane = threadIdx.x % kWarpSize,
                 warp = threadIdx.x % kWarpgroup / kWarpSize;
  const Matrix a(product.a, false), b(product.b, product.across);
  float rows[2][kDepth];
  for (int half = 0; half < 2; ++half) {
    const int row = static_cast<int>(warp * 16 + lane / 4) + 8 * half;
    for (int k = 0; k < kDepth; ++k)
      rows[half][k] = ElementAt(state, warpgroup, a.Address(row, k), product.bfloat16);
  }
  for (int pair = 0; pair < product.columns / 8; ++pair) {
    for (int one = 0; one < 2; ++one) {
      const int column = pair * 8 + static_cast<int>(lane % 4) * 2 + one;
      float elements[kDepth];
      for (int k = 0; k < kDepth; ++k)
        elements[k] = ElementAt(state, warpgroup, b.Address(column, k), product.bfloat16);
      for (int half = 0; half < 2; ++half) {
        float sum = 0;
        for (int k = 0; k < kDepth; ++k) sum += rows[half][k] * elements[k];
        float& to = product.sums[pair * 4 + half * 2 + one];
        to = product.add ? to + sum : sum;
      }
    }
  }
}

}  // namespace

uint32_t GetSharedAddress(const void* memory) {
  const auto [begin, size] = SharedMemory();
  const auto* at = static_cast<const unsigned char*>(memory);
  if (at < begin || at > begin + size)
    Fail("the address of something that is not in dynamic shared memory");
  return kBase + static_cast<uint32_t>(at - begin);
}

void StoreShared(uint32_t address, uint32_t value) {
  if (address % sizeof(value) != 0) Fail("a store to shared memory is not aligned");
  std::memcpy(Here().At(address, sizeof(value)), &value, sizeof(value));
  Here().Wrote(threadIdx.x, address, sizeof(value));
}

void CopyRow16(uint32_t to, const void* from, bool valid) {
  if (to % kPiece != 0 || reinterpret_cast<uintptr_t>(from) % kPiece != 0)
    Fail("a copy of 16 bytes is not aligned");
  Mine().begun.push_back({to, valid ? from : nullptr, false});
}

void ArriveWhenCopied(uint32_t barrier) { Mine().begun.push_back({barrier, nullptr, true}); }

void WaitForCopies() {
  while (!Mine().begun.empty()) LetOthersRun();
}

void InitBarrier(uint32_t barrier, int arrivals) { Here().Init(barrier, arrivals); }
void ArriveOnBarrier(uint32_t barrier) { Here().Arrive(barrier); }
void WaitForBarrier(uint32_t barrier, uint32_t parity) {
  if (parity > 1) Fail("a parity is 0 or 1");
  while (!Here().Ended(barrier, parity)) LetOthersRun();
}

void FenceAsyncProxy() { Here().Fence(threadIdx.x); }

void MeetAtBarrier(int id, int threads) {
  if (threads > static_cast<int>(blockDim.x)) Fail("a barrier for more threads than the block has");
  Meeting& meeting = Here().meetings[id];
  const unsigned round = meeting.round;
  SomethingHappened();
  if (++meeting.arrived == threads) {
    meeting.arrived = 0;
    ++meeting.round;
    return;
  }
  while (meeting.round == round) LetOthersRun();
}

void FenceProducts() {
  SyncWarp();
  Mine().fenced = true;
}

void AddProduct(float* sums, int columns, bool bfloat16, bool across, uint64_t a, uint64_t b,
                bool add) {
  if (blockDim.x / kWarpgroup * kWarpgroup <= threadIdx.x / kWarpgroup * kWarpgroup)
    Fail("a product by less than a warpgroup");
  if (!Mine().fenced) Fail("a product without FenceProducts behind what touched its accumulators");
  Mine().open.push_back({sums, columns, bfloat16, across, a, b, add});
}

void CommitProducts() {
  SyncWarp();
  Mine().committed.push_back(std::move(Mine().open));
  Mine().open.clear();
}

void WaitForProducts() {
  SyncWarp();
  // Warps get their results at different times, and sometimes a warpgroup long after the others, so
  // that the others advance as far as possible before anything is read.
  const unsigned turn = Mine().waits++;
  const unsigned late = (threadIdx.x / kWarpgroup + turn) % 3 == 0 ? kLate : 0;
  for (unsigned turns = 1 + (threadIdx.x / kWarpSize * 5 + turn) % 4 * 2 + late; turns > 0;
       --turns) {
    SomethingHappened();
    LetOthersRun();
  }
  for (const auto& group : Mine().committed) {
    for (const Product& product : group) Compute(product);
  }
  Mine().committed.clear();
  Mine().fenced = false;
}

}  // namespace vllm::gpu::emulation
