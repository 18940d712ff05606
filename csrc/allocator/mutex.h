// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

namespace vllm::allocator {

// A mutex without a constructor and, with the condition variable that Wait() uses, without a
// destructor: torch frees memory until the process ends.
struct Mutex {
  pthread_mutex_t native = PTHREAD_MUTEX_INITIALIZER;
};

class Lock {
 public:
  explicit Lock(Mutex* mutex) : mutex_(mutex) { pthread_mutex_lock(&mutex_->native); }
  ~Lock() { pthread_mutex_unlock(&mutex_->native); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

  void Wait(pthread_cond_t* condition) { pthread_cond_wait(condition, &mutex_->native); }

 private:
  Mutex* mutex_;
};

}  // namespace vllm::allocator
