// SPDX-License-Identifier: Apache-2.0
#include "allocator/block.h"

#include <cstdlib>
#include <new>

namespace vllm::allocator {

bool MakeChunks(Block* block, Error* error) {
  const size_t count = CountChunks(*block);
  void* memory = std::calloc(count, sizeof(Chunk));
  if (memory == nullptr) {
    return error->Set(Error::Kind::kFailed,
                      "the host has no memory left to record an allocation of %zu bytes",
                      block->size);
  }
  block->chunks = static_cast<Chunk*>(memory);
  for (size_t i = 0; i < count; ++i) new (block->chunks + i) Chunk;
  return true;
}

void DropChunks(Block* block) {
  std::free(block->chunks);
  block->chunks = nullptr;
}

}  // namespace vllm::allocator
