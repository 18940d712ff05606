// SPDX-License-Identifier: Apache-2.0
#include "gpu_emulation.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "core/gpu/launch.h"
#include "core/gpu/shared_memory.h"

#if !defined(__x86_64__)
#error "fibers are written for x86-64"
#endif

// Saves the callee-saved registers on the current stack, stores its top in *from, and continues
// with the stack `to`.
extern "C" void vllm_switch_stack(void** from, void* to);
asm(R"(
.text
.globl vllm_switch_stack
.hidden vllm_switch_stack
.type vllm_switch_stack, @function
vllm_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vllm_switch_stack, .-vllm_switch_stack
)");

namespace vllm::gpu {
namespace emulation {

Thread current;

namespace {

constexpr size_t kStack = 64 * 1024;
constexpr int kMaxThreads = 1024;
// Launches that run together: their blocks with the same number are in flight at once.
constexpr int kMaxTogether = 8;
// Fills shared memory, so that reading it before it is written does not give zeros.
constexpr int kGarbage = 0xCD;

struct Fiber {
  void* stack = nullptr;  // where it continues
  bool done = false;
};

// The most bytes that a lane offers to the others: one operand of a matrix instruction.
constexpr size_t kMostExchanged = 32;

// Data that the lanes of a warp, or of a wave, exchange. There are two sets, because a lane may be
// one exchange ahead of lanes that have not read yet.
struct LaneExchange {
  int lanes = 0;
  int arrived = 0;
  unsigned round = 0;
  unsigned char values[2][kWave][kMostExchanged];

  void Start(int left, int most) {
    lanes = left < most ? left : most;
    arrived = 0;
  }
};

// Bits of a warp's lanes before its first ballot.
constexpr uint32_t kArbitraryBits = 0xA5C396E1;

struct LaunchRecord {
  dim3 blocks;
  int threads = 0;
  size_t shared = 0;
  std::function<void()> body;
};

struct Block {
  Fiber fibers[kMaxThreads];
  LaneExchange warps[kMaxThreads / kWarpSize];
  LaneExchange waves[kMaxThreads / kWave];
  uint32_t ballots[kMaxThreads / kWarpSize];  // the last one of each warp
  int released = 0;      // threads that have called ReleaseWrites since the last barrier
  int all_released = 0;  // the number at the last barrier
  int number = 0;        // among the blocks in flight
  int waiting = 0;
  unsigned barrier = 0;  // number of barriers that all threads have passed
  const LaunchRecord* launch = nullptr;
  std::vector<unsigned char> shared;
  std::unique_ptr<Asynchronous> asynchronous;
};

Block in_flight[kMaxTogether];
Block* block = nullptr;  // of the running thread
int running = 0;         // index of the running fiber
bool progress = false;   // since the scheduler's last check
void* scheduler = nullptr;

bool together = false;
std::vector<LaunchRecord> recorded;

char* Stacks() {
  static void* memory = mmap(nullptr, kStack * kMaxThreads * kMaxTogether, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw std::runtime_error("no memory for the stacks of emulated threads");
  return static_cast<char*>(memory);
}

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "GPU emulation: %s (thread %u of block %u, %u)\n", what, current.thread.x,
               current.block.x, current.block.y);
  std::abort();
}

void Yield() { vllm_switch_stack(&block->fibers[running].stack, scheduler); }

void RunFiber() {
  block->launch->body();
  if (block->asynchronous != nullptr) block->asynchronous->Ended(static_cast<unsigned>(running));
  block->fibers[running].done = true;
  progress = true;
  Yield();
  Die("a finished thread was resumed");
}

void Start(Block& started, const LaunchRecord& launch) {
  started.launch = &launch;
  started.waiting = 0;
  started.shared.assign(launch.shared, kGarbage);
  started.asynchronous.reset();
  started.released = started.all_released = 0;
  for (uint32_t& ballot : started.ballots) ballot = 0;
  for (int first = 0; first < launch.threads; first += kWarpSize) {
    started.warps[first / kWarpSize].Start(launch.threads - first, kWarpSize);
    started.ballots[first / kWarpSize] = kArbitraryBits;
  }
  for (int first = 0; first < launch.threads; first += kWave)
    started.waves[first / kWave].Start(launch.threads - first, kWave);
  for (int thread = 0; thread < launch.threads; ++thread) {
    const size_t stack = static_cast<size_t>(started.number * kMaxThreads + thread);
    // The layout that vllm_switch_stack leaves: six registers, then the return address. At that
    // address, the stack is as at the beginning of any function.
    void** top = reinterpret_cast<void**>(Stacks() + kStack * (stack + 1)) - 1;
    *--top = reinterpret_cast<void*>(&RunFiber);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    started.fibers[thread] = {top, false};
  }
}

// Runs every thread of a block that has not ended until it waits. Returns how many threads have not
// ended then.
int RunOnce(Block& chosen, bool reversed) {
  const LaunchRecord& launch = *chosen.launch;
  int left = 0;
  block = &chosen;
  current.blocks = launch.blocks;
  current.threads = dim3(static_cast<unsigned>(launch.threads));
  for (int i = 0; i < launch.threads; ++i) {
    running = reversed ? launch.threads - 1 - i : i;
    if (chosen.fibers[running].done) continue;
    current.thread = dim3(static_cast<unsigned>(running), 0, 0);
    vllm_switch_stack(&scheduler, chosen.fibers[running].stack);
    if (!chosen.fibers[running].done) ++left;
  }
  return left;
}

// Block `at` of each launch.
void RunBlocks(const std::vector<LaunchRecord>& launches, dim3 at) {
  current.block = at;
  for (size_t i = 0; i < launches.size(); ++i) {
    in_flight[i].number = static_cast<int>(i);
    Start(in_flight[i], launches[i]);
  }
  for (int left = 1; left > 0;) {
    progress = false;
    left = 0;
    for (size_t i = 0; i < launches.size(); ++i) {
      left += RunOnce(in_flight[i], (at.x + at.y + at.z) % 2 != 0);
      if (in_flight[i].asynchronous != nullptr && in_flight[i].asynchronous->Step())
        progress = true;
    }
    if (left > 0 && !progress)
      Die("threads wait for others that have ended, or that wait elsewhere");
  }
}

void RunGrid(const std::vector<LaunchRecord>& launches) {
  const dim3 blocks = launches[0].blocks;
  for (unsigned z = 0; z < blocks.z; ++z) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) RunBlocks(launches, dim3(x, y, z));
    }
  }
}

}  // namespace

void* DynamicSharedMemory() { return block->shared.data(); }

std::pair<unsigned char*, size_t> SharedMemory() {
  return {block->shared.data(), block->shared.size()};
}

void Fail(const char* what) { Die(what); }

std::unique_ptr<Asynchronous>& AsynchronousOfBlock() { return block->asynchronous; }

void BlockBarrier() {
  const unsigned passed = block->barrier;
  progress = true;
  if (++block->waiting == block->launch->threads) {
    block->waiting = 0;
    ++block->barrier;
    block->all_released = std::exchange(block->released, 0);
    return;
  }
  while (block->barrier == passed) Yield();
}

namespace {

// The exchange of the running thread's warp, or of its wave.
LaneExchange& FindExchange(int lanes) {
  if (lanes == kWarpSize) return block->warps[current.thread.x / kWarpSize];
  if (lanes != kWave) Die("lanes that are neither a warp nor a wave exchange something");
  return block->waves[current.thread.x / kWave];
}

// Offers `size` bytes to the lanes of the exchange, waits for all of them, and returns all lanes'
// bytes.
const unsigned char (*Offer(LaneExchange& all, unsigned lane, const void* mine, size_t size))
    [kMostExchanged] {
      if (size > kMostExchanged) Die("a lane offers more bytes than the exchange has room for");
      const unsigned round = all.round;
      auto& values = all.values[round % 2];
      std::memcpy(values[lane], mine, size);
      progress = true;
      if (++all.arrived == all.lanes) {
        all.arrived = 0;
        ++all.round;
      } else {
        while (all.round == round) Yield();
      }
      return values;
    }

}  // namespace

void Exchange(const void* mine, void* theirs, size_t size, unsigned lane, int lanes) {
  LaneExchange& all = FindExchange(lanes);
  const auto values = Offer(all, current.thread.x % static_cast<unsigned>(lanes), mine, size);
  if (lane >= static_cast<unsigned>(all.lanes))
    Die("a shuffle asks for a lane that the block does not have");
  std::memcpy(theirs, values[lane], size);
}

uint32_t Ballot(bool value) {
  LaneExchange& warp = FindExchange(kWarpSize);
  const auto values = Offer(warp, current.thread.x % kWarpSize, &value, sizeof(value));
  uint32_t bits = 0;
  for (int lane = 0; lane < warp.lanes; ++lane)
    bits |= static_cast<uint32_t>(values[lane][0]) << lane;
  return bits;
}

uint64_t BallotOfWave(bool value) {
  const uint64_t mine = Ballot(value);
  const unsigned warp = current.thread.x / kWarpSize;
  block->ballots[warp] = static_cast<uint32_t>(mine);
  if (kWave == kWarpSize) return mine;
  const uint64_t other = block->ballots[warp ^ 1];
  return warp % 2 == 0 ? mine | other << kWarpSize : mine << kWarpSize | other;
}

void SyncWarp() {
  const bool nothing = false;
  Offer(FindExchange(kWarpSize), current.thread.x % kWarpSize, &nothing, sizeof(nothing));
}

void ReleaseWrites() { ++block->released; }

void CheckReleased() {
  if (block->all_released != block->launch->threads)
    Die("a signal after a barrier to which threads came without ReleaseWrites");
}

void LetOthersRun() { Yield(); }

void SomethingHappened() { progress = true; }

void Run(dim3 blocks, int threads, size_t shared, std::function<void()> body) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (threads < 1 || threads > kMaxThreads || blocks.y > 65535 || blocks.z > 65535)
    throw std::runtime_error("no GPU takes this launch");
  LaunchRecord launch{blocks, threads, shared, std::move(body)};
  if (together) {
    recorded.push_back(std::move(launch));
  } else {
    RunGrid({launch});
  }
}

}  // namespace emulation

// Launches between the two calls run together in the second call, as on several GPUs: one block of
// each launch, those with the same number. Kernels that wait for one another may rely on that.
// Returns the number of launches, or -1 if there are too many or their shapes differ.
extern "C" __attribute__((visibility("default"))) void vllm_emulation_begin() {
  emulation::together = true;
}
extern "C" __attribute__((visibility("default"))) int vllm_emulation_run() {
  using namespace emulation;
  together = false;
  const std::vector<LaunchRecord> launches = std::exchange(recorded, {});
  for (const LaunchRecord& launch : launches) {
    const dim3 a = launch.blocks, b = launches[0].blocks;
    if (launches.size() > kMaxTogether || a.x != b.x || a.y != b.y || a.z != b.z) return -1;
  }
  if (!launches.empty()) RunGrid(launches);
  return static_cast<int>(launches.size());
}

void* GetCurrentStream() { return nullptr; }
// A small number, so that kernels must loop over the grid.
int GetMultiprocessorCount() { return 2; }
int GetComputeCapability() { return emulation::kCapability; }
bool HasFnuz() { return emulation::kCapability == 94; }
// memmove, because tests copy overlapping ranges, which work on the CPU.
void CopyAsync(void* to, const void* from, size_t bytes) { std::memmove(to, from, bytes); }
void FailLaunch(const char* kernel, int, const char*) { throw std::runtime_error(kernel); }

// This process represents all GPUs, so a handle is an address.
std::pair<void*, ShareHandle> AllocateShared(size_t bytes) {
  const size_t rounded = (bytes + 255) / 256 * 256;
  void* memory = std::aligned_alloc(256, rounded);
  std::memset(memory, 0, rounded);
  return {memory, ExportShared(memory).first};
}
void FreeShared(void* memory) { std::free(memory); }
std::pair<ShareHandle, int64_t> ExportShared(const void* address) {
  ShareHandle handle{};
  std::memcpy(handle.data(), &address, sizeof(address));
  return {handle, 0};
}
void* OpenShared(const ShareHandle& handle) {
  void* memory;
  std::memcpy(&memory, handle.data(), sizeof(memory));
  return memory;
}
bool IsCapturing() { return false; }
void CopyToDevice(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace vllm::gpu
