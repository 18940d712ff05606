// SPDX-License-Identifier: Apache-2.0
// Loads, stores, atomics and moves between lanes. Global addresses are addresses of this process.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "gfx_machine.h"

namespace gfx {

// The bytes at an offset in the thread block's shared memory. Outside of it there is nothing.
inline uint8_t* Shared(Wave& w, const Inst& inst, uint64_t offset, uint32_t bytes) {
  auto& shared = w.group->shared;
  if (offset + bytes > shared.size())
    Fail(inst, "offset " + std::to_string(offset) + " is beyond the " +
                   std::to_string(shared.size()) + " bytes of shared memory");
  return shared.data() + offset;
}

inline uint8_t* Generic(Wave& w, const Inst& inst, uint64_t address, uint32_t bytes) {
  if (address >> 32 == kSharedBase >> 32)
    return Shared(w, inst, static_cast<uint32_t>(address), bytes);
  if (address >> 32 == kPrivateBase >> 32) Fail(inst, "private memory is not emulated");
  if (address < 4096) Fail(inst, "address " + std::to_string(address));
  return reinterpret_cast<uint8_t*>(address);
}

struct Address {
  unsigned vector;  // its register
  unsigned scalar;  // its register, or kNull or 127 for none
  int64_t offset;
};
inline uint8_t* Global(Wave& w, const Inst& inst, const Address& at, int lane, uint32_t bytes) {
  const uint64_t low = w.Vector(at.vector)[lane];
  const uint64_t address = at.scalar == kNull || at.scalar == 127
                               ? low | uint64_t{w.Vector(at.vector + 1)[lane]} << 32
                               : low + w.Pair(at.scalar);
  return Generic(w, inst, address + static_cast<uint64_t>(at.offset), bytes);
}

// How the bytes in memory become a register.
enum class Part { kAll, kLow, kHigh };

template <int kBytes, bool kSigned, Part kPart>
void LoadRegisters(Wave& w, unsigned to, int lane, const uint8_t* from) {
  if constexpr (kBytes >= 4) {
    for (int i = 0; i < kBytes / 4; ++i) std::memcpy(w.Vector(to + i) + lane, from + 4 * i, 4);
  } else {
    uint32_t value = 0;
    std::memcpy(&value, from, kBytes);
    constexpr int kUnused = 32 - 8 * kBytes;
    if constexpr (kSigned)
      value = static_cast<uint32_t>(static_cast<int32_t>(value << kUnused) >> kUnused);
    uint32_t& target = w.Vector(to)[lane];
    if constexpr (kPart == Part::kAll) target = value;
    if constexpr (kPart == Part::kLow) target = (target & 0xffff0000) | (value & 0xffff);
    if constexpr (kPart == Part::kHigh) target = (target & 0xffff) | value << 16;
  }
}
template <int kBytes, Part kPart>
void StoreRegisters(Wave& w, unsigned from, int lane, uint8_t* to) {
  if constexpr (kBytes >= 4) {
    for (int i = 0; i < kBytes / 4; ++i) std::memcpy(to + 4 * i, w.Vector(from + i) + lane, 4);
  } else {
    const uint32_t value = w.Vector(from)[lane] >> (kPart == Part::kHigh ? 16 : 0);
    std::memcpy(to, &value, kBytes);
  }
}

template <int kBytes, bool kSigned, Part kPart>
void LoadGlobal(Wave& w, const Inst& inst, const Address& at, unsigned to) {
  const uint64_t exec = w.Exec();
  // The register of the address may be one of those that the load writes.
  const uint8_t* from[kLanes] = {};
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1) from[i] = Global(w, inst, at, i, kBytes);
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1) LoadRegisters<kBytes, kSigned, kPart>(w, to, i, from[i]);
}
template <int kBytes, Part kPart>
void StoreGlobal(Wave& w, const Inst& inst, const Address& at, unsigned from) {
  const uint64_t exec = w.Exec();
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1) StoreRegisters<kBytes, kPart>(w, from, i, Global(w, inst, at, i, kBytes));
}

template <int kBytes, bool kSigned, Part kPart>
void LoadShared(Wave& w, const Inst& inst, unsigned address, uint32_t offset, unsigned to) {
  const uint64_t exec = w.Exec();
  const uint8_t* from[kLanes] = {};
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1) from[i] = Shared(w, inst, uint64_t{w.Vector(address)[i]} + offset, kBytes);
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1) LoadRegisters<kBytes, kSigned, kPart>(w, to, i, from[i]);
}
template <int kBytes, Part kPart>
void StoreShared(Wave& w, const Inst& inst, unsigned address, uint32_t offset, unsigned from) {
  const uint64_t exec = w.Exec();
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1)
      StoreRegisters<kBytes, kPart>(
          w, from, i, Shared(w, inst, uint64_t{w.Vector(address)[i]} + offset, kBytes));
}
// Two values, at two offsets.
template <int kBytes>
void LoadSharedTwice(Wave& w, const Inst& inst, unsigned address, uint32_t first, uint32_t second,
                     unsigned to) {
  const uint64_t exec = w.Exec();
  for (int i = 0; i < kLanes; ++i) {
    if (!(exec >> i & 1)) continue;
    const uint64_t base = w.Vector(address)[i];
    const uint8_t* one = Shared(w, inst, base + first, kBytes);
    const uint8_t* two = Shared(w, inst, base + second, kBytes);
    LoadRegisters<kBytes, false, Part::kAll>(w, to, i, one);
    LoadRegisters<kBytes, false, Part::kAll>(w, to + kBytes / 4, i, two);
  }
}

enum class Atomic { kAdd, kSub, kMinSigned, kMaxSigned, kMin, kMax, kAnd, kOr, kXor, kSwap };

template <Atomic kAtomic>
uint32_t Combine(uint32_t old, uint32_t value) {
  const auto a = static_cast<int32_t>(old), b = static_cast<int32_t>(value);
  switch (kAtomic) {
    case Atomic::kAdd:
      return old + value;
    case Atomic::kSub:
      return old - value;
    case Atomic::kMinSigned:
      return a < b ? old : value;
    case Atomic::kMaxSigned:
      return a > b ? old : value;
    case Atomic::kMin:
      return old < value ? old : value;
    case Atomic::kMax:
      return old > value ? old : value;
    case Atomic::kAnd:
      return old & value;
    case Atomic::kOr:
      return old | value;
    case Atomic::kXor:
      return old ^ value;
    default:
      return value;
  }
}
// Combines a lane's value with memory. Lanes come one after the other.
template <Atomic kAtomic>
void UpdateMemory(Wave& w, uint8_t* memory, int lane, unsigned value, unsigned returned,
                  bool returns) {
  uint32_t old = 0;
  std::memcpy(&old, memory, sizeof(old));
  const uint32_t combined = Combine<kAtomic>(old, w.Vector(value)[lane]);
  std::memcpy(memory, &combined, sizeof(combined));
  if (returns) w.Vector(returned)[lane] = old;
}
template <Atomic kAtomic>
void UpdateGlobal(Wave& w, const Inst& inst, const Address& at, unsigned value, unsigned returned,
                  bool returns) {
  const uint64_t exec = w.Exec();
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1)
      UpdateMemory<kAtomic>(w, Global(w, inst, at, i, 4), i, value, returned, returns);
}
template <Atomic kAtomic>
void UpdateShared(Wave& w, const Inst& inst, unsigned address, uint32_t offset, unsigned value,
                  unsigned returned, bool returns) {
  const uint64_t exec = w.Exec();
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1)
      UpdateMemory<kAtomic>(w, Shared(w, inst, uint64_t{w.Vector(address)[i]} + offset, 4), i,
                            value, returned, returns);
}

// Each lane reads the register of the lane that it chooses. A lane that is off gives zero.
inline void PermuteBackward(Wave& w, unsigned address, uint32_t offset, unsigned from,
                            unsigned to) {
  const uint64_t exec = w.Exec();
  uint32_t result[kLanes] = {};
  for (int i = 0; i < kLanes; ++i) {
    const unsigned lane = (w.Vector(address)[i] + offset) / 4 % kLanes;
    if (exec >> lane & 1) result[i] = w.Vector(from)[lane];
  }
  for (int i = 0; i < kLanes; ++i)
    if (exec >> i & 1) w.Vector(to)[i] = result[i];
}

template <int kWords>
void LoadScalar(Wave& w, const Inst& inst, uint64_t address, unsigned to) {
  const uint8_t* from = Generic(w, inst, address & ~uint64_t{3}, 4 * kWords);
  uint32_t words[kWords];
  std::memcpy(words, from, sizeof(words));
  for (int i = 0; i < kWords; ++i) WriteScalar<32>(w, to + i, words[i]);
}
// A load of less than a register, of RDNA4.
template <int kBytes, bool kSigned>
void LoadScalarPart(Wave& w, const Inst& inst, uint64_t address, unsigned to) {
  uint32_t value = 0;
  std::memcpy(&value, Generic(w, inst, address, kBytes), kBytes);
  constexpr int kUnused = 32 - 8 * kBytes;
  if (kSigned) value = static_cast<uint32_t>(static_cast<int32_t>(value << kUnused) >> kUnused);
  WriteScalar<32>(w, to, value);
}

}  // namespace gfx
