// SPDX-License-Identifier: Apache-2.0
#include "gpu_emulation.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "core/gpu/launch.h"

#if !defined(__x86_64__)
#error "fibers are written for x86-64"
#endif

// Saves the registers that a call keeps on the stack at *from, and goes on with the stack `to`.
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
// What reads shared memory before it is written shall not find zeros.
constexpr int kGarbage = 0xCD;

struct Fiber {
  void* stack = nullptr;  // where it goes on
  bool done = false;
};

// What the lanes of a warp leave for one another. There are two sets: a lane may be one exchange ahead of those that have not read yet.
struct WarpExchange {
  int lanes = 0;
  int arrived = 0;
  unsigned round = 0;
  unsigned char values[2][kWarpSize][8];
};

struct Block {
  Fiber fibers[kMaxThreads];
  WarpExchange warps[kMaxThreads / kWarpSize];
  int threads = 0, waiting = 0;
  unsigned barrier = 0;   // how many barriers all have passed
  int running = 0;        // which fiber
  bool progress = false;  // since the scheduler last looked
  void* scheduler = nullptr;
  const std::function<void()>* body = nullptr;
  std::vector<unsigned char> shared;
};

Block block;

char* Stacks() {
  static void* memory = mmap(nullptr, kStack * kMaxThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no memory for the stacks of emulated threads");
  return static_cast<char*>(memory);
}

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "GPU emulation: %s (thread %u of block %u, %u)\n", what, current.thread.x, current.block.x, current.block.y);
  std::abort();
}

void Yield() { vllm_switch_stack(&block.fibers[block.running].stack, block.scheduler); }

void RunFiber() {
  (*block.body)();
  block.fibers[block.running].done = true;
  block.progress = true;
  Yield();
  Die("a finished thread was resumed");
}

void Start(int thread) {
  // As vllm_switch_stack leaves a stack: six registers, then where to return to; there the stack is as at the begin of any function.
  void** top = reinterpret_cast<void**>(Stacks() + kStack * static_cast<size_t>(thread + 1)) - 1;
  *--top = reinterpret_cast<void*>(&RunFiber);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  block.fibers[thread] = {top, false};
}

void RunBlock(bool reversed) {
  block.waiting = 0;
  for (int w = 0; w * kWarpSize < block.threads; ++w) {
    block.warps[w].lanes = block.threads - w * kWarpSize < kWarpSize ? block.threads - w * kWarpSize : kWarpSize;
    block.warps[w].arrived = 0;
  }
  for (int thread = 0; thread < block.threads; ++thread) Start(thread);
  for (int left = block.threads; left > 0;) {
    block.progress = false;
    left = 0;
    for (int i = 0; i < block.threads; ++i) {
      const int thread = reversed ? block.threads - 1 - i : i;
      if (block.fibers[thread].done) continue;
      block.running = thread;
      current.thread.x = static_cast<unsigned>(thread);
      vllm_switch_stack(&block.scheduler, block.fibers[thread].stack);
      if (!block.fibers[thread].done) ++left;
    }
    if (left > 0 && !block.progress) Die("threads wait for others that have ended, or that wait elsewhere");
  }
}

}  // namespace

void* DynamicSharedMemory() { return block.shared.data(); }

void BlockBarrier() {
  const unsigned passed = block.barrier;
  block.progress = true;
  if (++block.waiting == block.threads) {
    block.waiting = 0;
    ++block.barrier;
    return;
  }
  while (block.barrier == passed) Yield();
}

namespace {

// Leaves `size` bytes for the lanes of the warp, waits for all of them, and returns what they left.
const unsigned char (*Meet(const void* mine, size_t size))[8] {
  const unsigned me = current.thread.x;
  WarpExchange& warp = block.warps[me / kWarpSize];
  const unsigned round = warp.round;
  auto& values = warp.values[round % 2];
  std::memcpy(values[me % kWarpSize], mine, size);
  block.progress = true;
  if (++warp.arrived == warp.lanes) {
    warp.arrived = 0;
    ++warp.round;
  } else {
    while (warp.round == round) Yield();
  }
  return values;
}

}  // namespace

void Exchange(const void* mine, void* theirs, size_t size, unsigned lane) {
  const auto values = Meet(mine, size);
  if (lane >= static_cast<unsigned>(block.warps[current.thread.x / kWarpSize].lanes)) {
    Die("a shuffle asks for a lane that the block does not have");
  }
  std::memcpy(theirs, values[lane], size);
}

uint32_t Ballot(bool value) {
  const auto values = Meet(&value, sizeof(value));
  uint32_t bits = 0;
  for (int lane = 0; lane < block.warps[current.thread.x / kWarpSize].lanes; ++lane) bits |= static_cast<uint32_t>(values[lane][0]) << lane;
  return bits;
}

void Run(dim3 blocks, int threads, size_t shared, const std::function<void()>& body) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (threads < 1 || threads > kMaxThreads || blocks.y > 65535 || blocks.z > 65535) throw std::runtime_error("no GPU takes this launch");
  block.threads = threads;
  block.body = &body;
  current.blocks = blocks;
  current.threads = dim3(static_cast<unsigned>(threads));
  for (unsigned z = 0; z < blocks.z; ++z) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) {
        current.block = dim3(x, y, z);
        current.thread = dim3(0, 0, 0);
        block.shared.assign(shared, kGarbage);
        RunBlock((x + y + z) % 2 != 0);
      }
    }
  }
}

}  // namespace emulation

void* CurrentStream() { return nullptr; }
// Few, so that kernels have to walk on by the grid.
int MultiprocessorCount() { return 2; }
// Copies that overlap are the tests' own affair: they pass on the CPU.
void CopyAsync(void* to, const void* from, size_t bytes) { std::memmove(to, from, bytes); }
void FailLaunch(const char* kernel, int, const char*) { throw std::runtime_error(kernel); }

}  // namespace vllm::gpu
