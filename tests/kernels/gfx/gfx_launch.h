// SPDX-License-Identifier: Apache-2.0
// Runs a kernel of a code object over a grid.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "gfx_decoder.h"

namespace gfx {

// An argument of the metadata: where it is in the kernel's argument block.
struct Argument {
  uint32_t offset = 0, bytes = 0;
  std::string kind;
};

struct Kernel {
  std::string name;
  uint64_t descriptor = 0;  // its offset in the image
  uint32_t vectors = 0;     // vector registers, with the accumulation registers
  std::vector<Argument> arguments;
};

// An ELF file's segments as they are in memory, and the instructions decoded so far.
struct CodeObject {
  std::unordered_map<std::string, Kernel> kernels;
  std::vector<uint8_t> image;
  std::vector<std::unique_ptr<Inst>> decoded;  // one for each word of the image

  void Load(const std::string& path);
  const Inst& At(uint32_t offset);
};

struct Launch {
  CodeObject* object;
  Kernel* kernel;
  uint32_t grid[3], block[3];
  void** arguments;
  uint32_t shared;  // bytes of dynamic shared memory

  void Run();

 private:
  std::vector<uint8_t> WriteArguments(uint32_t bytes) const;
};

}  // namespace gfx
