// SPDX-License-Identifier: Apache-2.0
// A range of addresses on one device, and the pieces of physical memory behind it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "allocator/error.h"

namespace vllm::allocator {

// Physical memory that the driver creates, maps and releases as one piece. Python knows a chunk by
// the address of `handle`.
struct Chunk {
  uint64_t handle = 0;  // the driver's latest handle
  bool held = false;    // whether the handle still has to be released
  bool mapped = false;
};

struct Block {
  int device = 0;
  size_t size = 0;          // in bytes; a multiple of the device's granularity
  size_t chunk_size = 0;    // in bytes, from 1 to `size`; the last chunk may be smaller
  uint64_t address = 0;     // on the device
  Chunk* chunks = nullptr;  // owned
  bool mapped = false;      // whether all chunks are mapped
};

inline size_t CountChunks(const Block& block) {
  return block.size / block.chunk_size + (block.size % block.chunk_size != 0);
}

// The place of a chunk in its block, in bytes, and its size.
inline size_t ChunkOffset(const Block& block, size_t index) { return index * block.chunk_size; }
inline size_t ChunkSize(const Block& block, size_t index) {
  const size_t rest = block.size - ChunkOffset(block, index);
  return rest < block.chunk_size ? rest : block.chunk_size;
}

// Makes the records of the block's chunks, of which none has memory yet. Returns false and sets
// `error` if the host has no memory left.
bool MakeChunks(Block* block, Error* error);

// Frees the records, not the memory that they describe.
void DropChunks(Block* block);

}  // namespace vllm::allocator
