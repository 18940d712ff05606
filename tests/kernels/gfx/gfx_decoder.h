// SPDX-License-Identifier: Apache-2.0
// The table of instructions, which generate.py writes, and the decoder over it.
#pragma once

#include <vector>

#include "gfx_machine.h"

namespace gfx {

// The encodings, in the order in which they are tried.
const std::vector<Encoding>& Encodings();

// Decodes the instruction at `offset` bytes of a code object of `bytes` bytes.
Inst Decode(const uint8_t* code, uint64_t bytes, uint32_t offset);

}  // namespace gfx
