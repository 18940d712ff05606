// SPDX-License-Identifier: Apache-2.0
#include "gfx_decoder.h"

#include <algorithm>
#include <cstdio>

namespace gfx {

Inst Decode(const uint8_t* code, uint64_t bytes, uint32_t offset) {
  uint32_t words[5] = {};
  if (offset + 4 > bytes) throw std::runtime_error("the program ran out of its code");
  std::memcpy(words, code + offset, std::min<uint64_t>(sizeof(words), bytes - offset));
  const uint64_t start = Join(words[1], words[0]);
  for (const Encoding& encoding : Encodings()) {
    if ((start & encoding.mask) != encoding.bits) continue;
    const unsigned number =
        static_cast<uint32_t>(start >> encoding.op_low) & ((1u << encoding.op_bits) - 1);
    const Encoding::Op& op = encoding.ops[number];
    if (op.run == nullptr) continue;
    Inst inst;
    inst.run = op.run;
    inst.name = op.name;
    std::memcpy(inst.words, words, sizeof(inst.words));
    int size = encoding.words;
    if (encoding.literal_in_words) {
      inst.literal = words[size - 1];
    } else {
      const auto has_literal = [&](int low) {
        // Sources have 9 bits in vector instructions, and 8 in scalar ones: 255 in both.
        const bool scalar = (words[0] & 0xc0000000) == 0x80000000;
        return Field(inst, low + (scalar ? 7 : 8), low) == 255;
      };
      const bool in_two = encoding.always >> number & 1 ||
                          (encoding.always != 0 && encoding.always >> Field(inst, 21, 17) & 1);
      if (in_two || std::any_of(encoding.literals.begin(), encoding.literals.end(), has_literal))
        inst.literal = words[size++];
    }
    inst.next = offset + 4 * static_cast<uint32_t>(size);
    return inst;
  }
  char text[64];
  std::snprintf(text, sizeof(text), "no instruction begins with %08x %08x", words[0], words[1]);
  throw std::runtime_error(text);
}

}  // namespace gfx
