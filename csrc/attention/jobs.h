// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "core/cpu_parallel.h"

namespace vllm {

// Calls f(job, memory) for each job in [0, jobs). Uses as many of torch's threads as `elements`
// elements of work justify. A thread that finishes takes the next job, so jobs may differ in size.
// Each thread has its own memory, made by make_memory().
template <typename M, typename F>
void RunJobs(int64_t jobs, int64_t elements, const M& make_memory, const F& f) {
  if (jobs == 0) return;
  const int64_t worth = 1 + elements / kElementsPerThread;
  const int64_t threads =
      std::min({jobs, worth, static_cast<int64_t>(torch::stable::get_num_threads())});
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t /*begin*/, int64_t /*end*/) {
    auto memory = make_memory();
    for (int64_t job = next++; job < jobs; job = next++) f(job, memory);
  };
  if (threads == 1) {
    work(0, 1);
  } else {
    torch::stable::parallel_for(0, threads, 1, work);
  }
}

}  // namespace vllm
