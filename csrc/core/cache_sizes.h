// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace vllm {

// The sizes in bytes of the data caches of one core.
struct CacheSizes {
  size_t first;
  size_t second;
};

// Returns those of this machine, or common ones where the system does not tell.
const CacheSizes& GetCacheSizes();

}  // namespace vllm
