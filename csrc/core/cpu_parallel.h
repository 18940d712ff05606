// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace vllm {

// The number of elements that justify another thread. Distributing work costs some microseconds,
// about the time in which a core processes this many.
inline constexpr int64_t kElementsPerThread = 16384;

// Calls f(begin, end) for parts of [0, items) on torch's threads, whose number
// torch.set_num_threads and OMP_NUM_THREADS set, or on the calling thread if there is little work.
// `elements` is the size of one item. An exception from f ends the call with a std::runtime_error.
template <typename F>
void ParallelFor(int64_t items, int64_t elements, const F& f) {
  if (items == 0) return;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, elements));
  if (items <= grain) {
    f(int64_t{0}, items);
  } else {
    torch::stable::parallel_for(0, items, grain, f);
  }
}

}  // namespace vllm
