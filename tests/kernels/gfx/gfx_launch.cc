// SPDX-License-Identifier: Apache-2.0
#include "gfx_launch.h"

#include <elf.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

namespace gfx {
namespace {

// Registers and shared memory hold this before a kernel writes them: no address, and as a float32
// number -7e29.
constexpr uint32_t kUnwritten = 0xf14f14f1;

// A kernel descriptor, of which the LLVM project's guide to AMDGPU lists the parts.
struct Descriptor {
  uint32_t shared, private_bytes, argument_bytes, unused0;
  int64_t entry;
  uint32_t unused1[5];
  uint32_t resources3, resources1, resources2;
  uint16_t properties, preload;
  uint32_t unused2;
};
static_assert(sizeof(Descriptor) == 64);

// A packet in the queue of a GPU, of which kernels read the sizes of the grid.
struct Packet {
  uint16_t header, axes, block[3], unused0;
  uint32_t threads[3], private_bytes, shared;
  uint64_t kernel, arguments, unused1, signal;
};
static_assert(sizeof(Packet) == 64);

template <typename T>
T Bits(T value, int low, int count) {
  return value >> low & ((T{1} << count) - 1);
}

// A thread block: its waves, and the memory that they share.
class Block {
 public:
  Block(const Launch& launch, const Descriptor& descriptor, const uint8_t* arguments)
      : launch_(launch), descriptor_(descriptor), arguments_(arguments) {
    threads_ = launch.block[0] * launch.block[1] * launch.block[2];
    waves_.resize((threads_ + kLanes - 1) / kLanes);
    group_.shared.resize(descriptor.shared + launch.shared);
    packet_.axes = 3;
    packet_.shared = static_cast<uint32_t>(group_.shared.size());
    packet_.arguments = reinterpret_cast<uint64_t>(arguments);
    for (int axis = 0; axis < 3; ++axis) {
      packet_.block[axis] = static_cast<uint16_t>(launch.block[axis]);
      packet_.threads[axis] = launch.grid[axis] * launch.block[axis];
    }
  }

  void Run(const uint32_t (&place)[3]) {
    for (size_t i = 0; i < group_.shared.size(); ++i)
      group_.shared[i] = static_cast<uint8_t>(kUnwritten >> (8 * (i % 4)));
    for (size_t i = 0; i < waves_.size(); ++i) Start(waves_[i], i, place);
    bool all_ended = false;
    while (!all_ended) {
      all_ended = true;
      for (Wave& wave : waves_) {
        RunUntilBarrier(wave);
        all_ended = all_ended && wave.state == State::kEnded;
      }
      for (Wave& wave : waves_)
        if (wave.state == State::kAtBarrier) wave.state = State::kRunning;
    }
  }

 private:
  void RunUntilBarrier(Wave& wave) {
    const Inst* inst = nullptr;
    try {
      while (wave.state == State::kRunning) {
        inst = &launch_.object->At(wave.pc);
        wave.pc = inst->next;
        inst->run(wave, *inst);
      }
    } catch (const std::runtime_error& error) {
      char text[96];
      std::snprintf(text, sizeof(text), "after %s at %#x: ", inst ? inst->name : "the start",
                    wave.pc);
      throw std::runtime_error(text + std::string(error.what()));
    }
  }

  // Sets a wave's registers as the kernel descriptor asks for.
  void Start(Wave& wave, size_t number, const uint32_t (&place)[3]) {
    std::fill(std::begin(wave.scalar), std::end(wave.scalar), kUnwritten);
    wave.vectors.assign(size_t{launch_.kernel->vectors} * kLanes, kUnwritten);
    wave.scc = 0;
    wave.group = &group_;
    wave.state = State::kRunning;
    wave.pc = static_cast<uint32_t>(launch_.kernel->descriptor + descriptor_.entry);
    wave.accumulators = kGeneration == 9 ? 4 * (Bits(descriptor_.resources3, 0, 6) + 1) : 0;
    const size_t first = number * kLanes;
    const size_t count = std::min<size_t>(kLanes, threads_ - first);
    wave.SetPair(kExec, count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1);
    wave.SetPair(kVcc, 0);
    SetScalars(wave, place);
    const bool packed = Bits(descriptor_.resources2, 11, 2) > 0;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const auto thread = static_cast<uint32_t>(first + lane);
      const uint32_t x = thread % launch_.block[0], rest = thread / launch_.block[0];
      const uint32_t y = rest % launch_.block[1], z = rest / launch_.block[1];
      // All emulated GPUs have the three numbers in one register.
      wave.Vector(0)[lane] = packed ? x | y << 10 | z << 20 : x;
    }
  }

  void SetScalars(Wave& wave, const uint32_t (&place)[3]) {
    const uint16_t asked = descriptor_.properties;
    const auto arguments = reinterpret_cast<uint64_t>(arguments_);
    unsigned next = 0;
    if (asked & 1) next += 4;  // a buffer over private memory
    if (asked & 2) {
      wave.SetPair(next, reinterpret_cast<uint64_t>(&packet_));
      next += 2;
    }
    if (asked & 4) next += 2;  // a queue
    if (asked & 8) {
      wave.SetPair(next, arguments);
      next += 2;
    }
    if (asked & 16) next += 2;  // the number of the dispatch
    if (asked & 32) next += 2;  // private memory
    if (asked & 64) next += 1;  // its size
    // Arguments that are in registers already.
    const unsigned count = Bits<uint32_t>(descriptor_.preload, 0, 7);
    const unsigned offset = Bits<uint32_t>(descriptor_.preload, 7, 9);
    for (unsigned i = 0; i < count; ++i)
      std::memcpy(&wave.scalar[next++], arguments_ + 4 * (offset + i), 4);
    next = Bits(descriptor_.resources2, 1, 5);
    if (kGeneration >= 12) {
      wave.scalar[108 + 9] = place[0];
      wave.scalar[108 + 7] = place[1] | place[2] << 16;
      return;
    }
    for (int axis = 0; axis < 3; ++axis)
      if (Bits(descriptor_.resources2, 7 + axis, 1)) wave.scalar[next++] = place[axis];
  }

  const Launch& launch_;
  const Descriptor& descriptor_;
  const uint8_t* arguments_;
  uint32_t threads_;
  Packet packet_{};
  Group group_;
  std::vector<Wave> waves_;
};

}  // namespace

void CodeObject::Load(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  Elf64_Ehdr head;
  if (file.size() < sizeof(head)) throw std::runtime_error("cannot read " + path);
  std::memcpy(&head, file.data(), sizeof(head));
  for (int i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, file.data() + head.e_phoff + i * sizeof(segment), sizeof(segment));
    if (segment.p_type != PT_LOAD) continue;
    image.resize(std::max<size_t>(image.size(), segment.p_vaddr + segment.p_memsz));
    std::memcpy(image.data() + segment.p_vaddr, file.data() + segment.p_offset, segment.p_filesz);
  }
  decoded.resize(image.size() / 4 + 1);
}

const Inst& CodeObject::At(uint32_t offset) {
  if (offset / 4 >= decoded.size()) throw std::runtime_error("the program left its code");
  std::unique_ptr<Inst>& inst = decoded[offset / 4];
  if (inst == nullptr) inst = std::make_unique<Inst>(Decode(image.data(), image.size(), offset));
  return *inst;
}

std::vector<uint8_t> Launch::WriteArguments(uint32_t bytes) const {
  std::vector<uint8_t> written(bytes + 64);
  int next = 0;
  for (const Argument& argument : kernel->arguments) {
    uint8_t* to = written.data() + argument.offset;
    const auto put = [&](uint64_t value) { std::memcpy(to, &value, argument.bytes); };
    const auto axis = [&](const char* start) {
      const size_t length = std::strlen(start);
      return argument.kind.compare(0, length, start) == 0 ? argument.kind[length] - 'x' : -1;
    };
    if (argument.kind.compare(0, 7, "hidden_") != 0)
      std::memcpy(to, arguments[next++], argument.bytes);
    else if (const int a = axis("hidden_block_count_"); a >= 0)
      put(grid[a]);
    else if (const int b = axis("hidden_group_size_"); b >= 0)
      put(block[b]);
    else if (argument.kind == "hidden_grid_dims")
      put(grid[2] > 1 ? 3 : grid[1] > 1 ? 2 : 1);
    else if (argument.kind == "hidden_dynamic_lds_size")
      put(shared);
    else if (argument.kind == "hidden_shared_base")
      put(kSharedBase >> 32);
    else if (argument.kind == "hidden_private_base")
      put(kPrivateBase >> 32);
    // The others, such as remainders of blocks and offsets of the grid, are zero.
  }
  return written;
}

void Launch::Run() {
  Descriptor descriptor;
  if (kernel->descriptor + sizeof(descriptor) > object->image.size())
    throw std::runtime_error("the kernel's descriptor is not in its code object");
  std::memcpy(&descriptor, object->image.data() + kernel->descriptor, sizeof(descriptor));
  if (descriptor.private_bytes != 0) throw std::runtime_error("private memory is not emulated");
  const bool narrow = descriptor.properties >> 10 & 1;
  if (narrow != (kLanes == 32)) throw std::runtime_error("the kernel has waves of another size");
  const std::vector<uint8_t> block_of_arguments = WriteArguments(descriptor.argument_bytes);
  Block group(*this, descriptor, block_of_arguments.data());
  for (uint32_t z = 0; z < grid[2]; ++z)
    for (uint32_t y = 0; y < grid[1]; ++y)
      for (uint32_t x = 0; x < grid[0]; ++x) group.Run({x, y, z});
}

}  // namespace gfx
