// SPDX-License-Identifier: Apache-2.0
// One wave of an AMD GPU: its registers, and how instructions read operands and write results.
// generate.py writes one function for each instruction over it.
//
// VLLM_GFX_LANES, VLLM_GFX_RDNA and VLLM_GFX_GENERATION (9, 11, 12) say which GPU it is.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "gfx_values.h"

namespace gfx {

// Functions that instructions share are not copied into each: compiling takes long enough.
#define VLLM_GFX_SHARED [[gnu::noinline]]

inline constexpr int kLanes = VLLM_GFX_LANES;
inline constexpr bool kRdna = VLLM_GFX_RDNA;
inline constexpr int kGeneration = VLLM_GFX_GENERATION;

// Scalar registers with a meaning of their own.
inline constexpr unsigned kVcc = 106, kExec = 126, kM0 = kRdna ? 125 : 124;
inline constexpr unsigned kNull = kRdna ? 124 : 127;  // gfx9 has none; 127 means "no address" there
inline constexpr unsigned kVgpr = 256;                // the first vector register, as an operand
// The upper halves of generic addresses of shared and of private memory.
inline constexpr uint64_t kSharedBase = uint64_t{0x00a10000} << 32;
inline constexpr uint64_t kPrivateBase = uint64_t{0x00b20000} << 32;

struct Wave;
struct Inst;
using Run = void(Wave&, const Inst&);

struct Inst {
  Run* run = nullptr;  // null: not decoded yet
  const char* name = "";
  uint32_t words[4] = {};
  uint32_t literal = 0;
  uint32_t next = 0;  // offset of the following instruction in the code
};

struct Encoding {
  uint64_t mask, bits;  // of the first two words
  int words;
  int op_low, op_bits;
  std::vector<int> literals;  // low bits of the source fields that may ask for a literal
  bool literal_in_words;      // the last word is the literal
  uint32_t always;            // numbers of instructions that have one as one of two
  struct Op {
    Run* run;
    const char* name;
  };
  std::vector<Op> ops;
};

// Memory that the waves of a thread block share.
struct Group {
  std::vector<uint8_t> shared;
};

enum class State { kRunning, kAtBarrier, kEnded };

struct Wave {
  uint32_t scalar[128];
  uint32_t scc;
  uint32_t pc;
  uint32_t accumulators;  // number of the first accumulation register among the vector registers
  State state;
  Group* group;
  std::vector<uint32_t> vectors;  // kLanes words for each register

  uint32_t* Vector(unsigned number) {
    if ((number + 1) * kLanes > vectors.size())
      throw std::runtime_error("v" + std::to_string(number) + " is beyond the kernel's registers");
    return vectors.data() + number * kLanes;
  }
  uint64_t Pair(unsigned number) const {
    return scalar[number] | uint64_t{scalar[number + 1]} << 32;
  }
  void SetPair(unsigned number, uint64_t value) {
    scalar[number] = static_cast<uint32_t>(value);
    scalar[number + 1] = static_cast<uint32_t>(value >> 32);
  }
  uint64_t Mask(unsigned number) const { return kLanes == 64 ? Pair(number) : scalar[number]; }
  void SetMask(unsigned number, uint64_t value) {
    if (number == kNull && kRdna) return;
    if constexpr (kLanes == 64)
      SetPair(number, value);
    else
      scalar[number] = static_cast<uint32_t>(value);
  }
  uint64_t Exec() const { return Mask(kExec); }
};

[[noreturn]] inline void Fail(const Inst& inst, const std::string& what) {
  throw std::runtime_error(std::string(inst.name) + ": " + what);
}

inline uint32_t Field(const Inst& inst, int high, int low) {
  const int word = low / 32;
  const uint64_t both =
      inst.words[word] | (word < 3 ? uint64_t{inst.words[word + 1]} << 32 : uint64_t{0});
  return static_cast<uint32_t>(both >> (low % 32) & ((uint64_t{1} << (high - low + 1)) - 1));
}
inline int32_t SignedField(const Inst& inst, int high, int low) {
  const int unused = 31 - (high - low);
  return static_cast<int32_t>(Field(inst, high, low) << unused) >> unused;
}

// The kind of an operand, for its constants and its signs.
enum class Kind { kBits, kSigned, kFloat };

template <int kBits>
using Word = std::conditional_t<(kBits > 32), uint64_t, uint32_t>;

template <int kBits, Kind kKind>
Word<kBits> FloatConstant(unsigned code) {
  constexpr double kValues[] = {0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0, 0.15915494309189532};
  const double value = kValues[code - 240];
  if constexpr (kBits == 64) return Raw(value);
  if constexpr (kBits == 16) return static_cast<uint32_t>(Raw(static_cast<Half>(value)));
  return static_cast<uint32_t>(Raw(static_cast<float>(value)));
}

// Reads a scalar operand or a constant.
template <int kBits, Kind kKind>
VLLM_GFX_SHARED Word<kBits> ReadScalar(const Wave& w, const Inst& inst, unsigned code) {
  using Value = Word<kBits>;
  if (code >= 128 && code <= 192) return Value{code - 128};
  if (code >= 193 && code <= 208) return static_cast<Value>(-static_cast<int64_t>(code - 192));
  if (code >= 240 && code <= 248) return FloatConstant<kBits, kKind>(code);
  if (code == 255) {
    if constexpr (kBits == 64 && kKind == Kind::kFloat) return uint64_t{inst.literal} << 32;
    if constexpr (kBits == 64 && kKind == Kind::kSigned)
      return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(inst.literal)));
    return inst.literal;
  }
  if (code == 235) return static_cast<Value>(kBits == 64 ? kSharedBase : 0);
  if (code == 237) return static_cast<Value>(kBits == 64 ? kPrivateBase : 0);
  if (code == 251) return w.Mask(kVcc) == 0;
  if (code == 252) return w.Exec() == 0;
  if (code == 253) return w.scc;
  if (code >= 128) Fail(inst, "operand " + std::to_string(code) + " is not emulated");
  if (kRdna && code == kNull) return 0;
  if constexpr (kBits == 64) return w.Pair(code);
  return w.scalar[code];
}

template <int kBits>
struct Operand {
  Word<kBits> lanes[kLanes];
};

// Reads an operand for all lanes. Of 16 bits, the upper ones are what the register holds.
template <int kBits, Kind kKind>
VLLM_GFX_SHARED Operand<kBits> Read(Wave& w, const Inst& inst, unsigned code) {
  Operand<kBits> result;
  if (code < kVgpr) {
    const Word<kBits> value = ReadScalar<kBits, kKind>(w, inst, code);
    for (auto& lane : result.lanes) lane = value;
  } else if constexpr (kBits == 64) {
    const uint32_t *low = w.Vector(code - kVgpr), *high = w.Vector(code - kVgpr + 1);
    for (int i = 0; i < kLanes; ++i) result.lanes[i] = Join(high[i], low[i]);
  } else {
    std::memcpy(result.lanes, w.Vector(code - kVgpr), sizeof(result.lanes));
  }
  return result;
}

// A pair of float32 numbers. A constant is in both.
VLLM_GFX_SHARED inline Operand<64> ReadPair(Wave& w, const Inst& inst, unsigned code) {
  if (code < 128 || code >= kVgpr) return Read<64, Kind::kFloat>(w, inst, code);
  const uint32_t value = ReadScalar<32, Kind::kFloat>(w, inst, code);
  Operand<64> result;
  for (auto& lane : result.lanes) lane = Join(value, value);
  return result;
}

// A 16-bit operand of the short encodings of RDNA: bit 7 of a vector register's number asks for the
// upper half of the register.
template <Kind kKind>
VLLM_GFX_SHARED Operand<16> ReadHalf(Wave& w, const Inst& inst, unsigned code) {
  if (!kRdna || code < kVgpr + 128) return Read<16, kKind>(w, inst, code);
  auto result = Read<16, kKind>(w, inst, code - 128);
  for (auto& lane : result.lanes) lane >>= 16;
  return result;
}
inline void TakeUpperHalf(Operand<16>& operand, unsigned upper) {
  if (upper)
    for (auto& lane : operand.lanes) lane >>= 16;
}

// Applies the modifiers of a floating-point operand.
template <int kBits>
VLLM_GFX_SHARED void ApplySigns(Operand<kBits>& operand, unsigned negative, unsigned absolute) {
  if (!negative && !absolute) return;
  constexpr Word<kBits> kSign = Word<kBits>{1} << (kBits - 1);
  for (auto& lane : operand.lanes) {
    if (absolute) lane &= ~kSign;
    if (negative) lane ^= kSign;
  }
}

// Applies the modifiers of a float16 number in the lower half of a register.
VLLM_GFX_SHARED inline void ApplyHalfSigns(Operand<32>& operand, unsigned negative,
                                           unsigned absolute) {
  for (auto& lane : operand.lanes) {
    if (absolute) lane &= ~0x8000u;
    if (negative) lane ^= 0x8000u;
  }
}

// Chooses the halves of a packed operand, and applies their signs.
template <int kBits>
VLLM_GFX_SHARED void ChooseHalves(Operand<kBits>& operand, unsigned low, unsigned high,
                                  unsigned negative_low, unsigned negative_high) {
  constexpr int kHalf = kBits / 2;
  constexpr Word<kBits> kOnes = (Word<kBits>{1} << kHalf) - 1;
  constexpr Word<kBits> kSign = Word<kBits>{1} << (kHalf - 1);
  for (auto& lane : operand.lanes) {
    Word<kBits> first = (low ? lane >> kHalf : lane) & kOnes;
    Word<kBits> second = (high ? lane >> kHalf : lane) & kOnes;
    if (negative_low) first ^= kSign;
    if (negative_high) second ^= kSign;
    lane = first | second << kHalf;
  }
}

// Chooses a byte, a word or all of an operand of an SDWA instruction.
template <int kBits>
VLLM_GFX_SHARED void ChoosePart(Operand<kBits>& operand, unsigned part, bool sign_extended) {
  if (part >= 6) return;
  const int bits = part < 4 ? 8 : 16, low = part < 4 ? 8 * part : 16 * (part - 4);
  for (auto& lane : operand.lanes) {
    const auto value = static_cast<uint32_t>(lane) >> low << (32 - bits);
    lane = sign_extended ? static_cast<uint32_t>(static_cast<int32_t>(value) >> (32 - bits))
                         : value >> (32 - bits);
  }
}
// Puts results into the part of the register that an SDWA instruction chooses.
VLLM_GFX_SHARED inline void PlacePart(Operand<32>& result, const uint32_t* old, unsigned part,
                                      unsigned unused) {
  if (part >= 6) return;
  const int bits = part < 4 ? 8 : 16, low = part < 4 ? 8 * part : 16 * (part - 4);
  const uint32_t mask = ((1u << bits) - 1) << low;
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t placed = result.lanes[i] << low & mask;
    if (unused == 2)
      result.lanes[i] = placed | (old[i] & ~mask);
    else if (unused == 1 && result.lanes[i] >> (bits - 1) & 1)
      result.lanes[i] = placed | ~(mask | ((1u << low) - 1));
    else
      result.lanes[i] = placed;
  }
}

// Applies the output modifiers of a floating-point result.
template <typename T, int kBits, int kHeld>
VLLM_GFX_SHARED void ApplyOutput(Operand<kHeld>& result, unsigned factor, unsigned clamp) {
  if (!factor && !clamp) return;
  constexpr float kFactors[] = {1, 2, 4, 0.5f};
  for (auto& lane : result.lanes) {
    T value = As<T, kBits>(lane) * static_cast<T>(kFactors[factor]);
    if (clamp) value = value > T(0) ? (value < T(1) ? value : T(1)) : T(0);
    Put<T, kBits>(lane, value);
  }
}

// Writes the lanes that are on.
template <int kBits>
VLLM_GFX_SHARED void Write(Wave& w, unsigned number, const Operand<kBits>& result, uint64_t exec) {
  uint32_t* low = w.Vector(number);
  if constexpr (kBits == 64) {
    uint32_t* high = w.Vector(number + 1);
    for (int i = 0; i < kLanes; ++i) {
      if (!(exec >> i & 1)) continue;
      low[i] = static_cast<uint32_t>(result.lanes[i]);
      high[i] = static_cast<uint32_t>(result.lanes[i] >> 32);
    }
  } else {
    for (int i = 0; i < kLanes; ++i)
      low[i] = exec >> i & 1 ? static_cast<uint32_t>(result.lanes[i]) : low[i];
  }
}
// Writes the lower or the upper half of a register.
VLLM_GFX_SHARED inline void WriteHalf(Wave& w, unsigned number, const Operand<32>& result,
                                      bool upper, uint64_t exec) {
  uint32_t* out = w.Vector(number);
  for (int i = 0; i < kLanes; ++i) {
    if (!(exec >> i & 1)) continue;
    out[i] = upper ? (out[i] & 0xffff) | result.lanes[i] << 16
                   : (out[i] & 0xffff0000) | (result.lanes[i] & 0xffff);
  }
}
template <int kBits>
void WriteScalar(Wave& w, unsigned number, Word<kBits> value) {
  if (kRdna && number == kNull) return;
  if constexpr (kBits == 64)
    w.SetPair(number, value);
  else
    w.scalar[number] = value;
}

inline void Branch(Wave& w, const Inst& inst, bool taken) {
  if (taken) w.pc = inst.next + 4 * static_cast<uint32_t>(SignedField(inst, 15, 0));
}

}  // namespace gfx
