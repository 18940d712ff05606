// SPDX-License-Identifier: Apache-2.0
// The size of the chunks of new blocks, as the variable VLLM_SLEEP_MEM_CHUNK_SIZE says.
#pragma once

#include <cstddef>

#include "allocator/error.h"

namespace vllm::allocator {

// Reads the variable: a number of MiB from 1 to 1048576, decimal or hexadecimal (0x). Empty and
// blank mean unset. Returns false and sets `error` if it is malformed.
bool ReadChunkSetting(Error* error);

// Returns the size in bytes: 256 MiB until ReadChunkSetting() has found another one.
size_t GetChunkSetting();

}  // namespace vllm::allocator
