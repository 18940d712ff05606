// SPDX-License-Identifier: Apache-2.0
// Measures the limits of this machine with all threads: reading, copying and multiply-adding.
// Prints one JSON object.
//
// usage: limits [threads]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float Vector __attribute__((vector_size(kBytes), may_alias));
constexpr int kLanes = kBytes / sizeof(float);
// Far larger than any last-level cache; each thread has its own part.
constexpr size_t kBufferBytes = size_t{512} << 20;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

volatile float sink;

// Reads from kStreams places at once: prefetchers follow several streams and load more in total
// than for one stream.
template <size_t kStreams>
void Read(const char* from, size_t bytes) {
  const size_t part = bytes / kStreams / 4096 * 4096;
  Vector sum[8] = {};
  for (size_t i = 0; i < part; i += 8 * kBytes) {
    for (size_t s = 0; s < kStreams; ++s) {
      for (int j = 0; j < 8; ++j)
        sum[j] += *reinterpret_cast<const Vector*>(from + s * part + i + j * kBytes);
    }
  }
  sink = (sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7])[0];
}

void Copy(const char* from, char* to, size_t bytes) {
  for (size_t i = 0; i + kBytes <= bytes; i += kBytes)
    *reinterpret_cast<Vector*>(to + i) = *reinterpret_cast<const Vector*>(from + i);
}

// Bypasses the caches: lines of the target are not read before they are written.
void StreamingCopy(const char* from, char* to, size_t bytes) {
#if defined(__AVX512F__)
  for (size_t i = 0; i + 64 <= bytes; i += 64)
    _mm512_stream_ps(reinterpret_cast<float*>(to + i), *reinterpret_cast<const Vector*>(from + i));
#elif defined(__AVX__)
  for (size_t i = 0; i + 32 <= bytes; i += 32)
    _mm256_stream_ps(reinterpret_cast<float*>(to + i), *reinterpret_cast<const Vector*>(from + i));
#else
  std::memcpy(to, from, bytes);
#endif
}

// Twelve chains of multiply-adds fill two units with a latency of up to six cycles.
double MultiplyAdd(int64_t rounds) {
  Vector acc[12], factor, term;
  for (int lane = 0; lane < kLanes; ++lane) {
    factor[lane] = 0.999f;
    term[lane] = 0.001f;
  }
  for (auto& a : acc) a = term;
  for (int64_t i = 0; i < rounds; ++i) {
    for (auto& a : acc) a = a * factor + term;
  }
  float total = 0;
  for (auto& a : acc) total += a[0];
  sink = total;
  return 12.0 * 2 * kLanes * rounds;
}

template <typename F>
double Fastest(int threads, int repeat, const F& f) {
  double best = 1e9;
  for (int r = 0; r < repeat; ++r) {
    std::vector<std::thread> pool;
    const double begin = Seconds();
    for (int t = 0; t < threads; ++t) pool.emplace_back([&, t] { f(t); });
    for (auto& thread : pool) thread.join();
    best = std::min(best, Seconds() - begin);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1]))
                               : static_cast<int>(std::thread::hardware_concurrency());
  char* from = static_cast<char*>(std::aligned_alloc(4096, kBufferBytes));
  char* to = static_cast<char*>(std::aligned_alloc(4096, kBufferBytes));
  if (from == nullptr || to == nullptr) return 1;
  const size_t part = kBufferBytes / threads / 4096 * 4096;
  Fastest(threads, 1, [&](int t) {
    std::memset(from + t * part, 0, part);
    std::memset(to + t * part, 0, part);
  });
  const double bytes = static_cast<double>(part) * threads;
  const double read =
      bytes / std::min({Fastest(threads, 5, [&](int t) { Read<1>(from + t * part, part); }),
                        Fastest(threads, 5, [&](int t) { Read<2>(from + t * part, part); }),
                        Fastest(threads, 5, [&](int t) { Read<4>(from + t * part, part); })});
  const double copy =
      2 * bytes / Fastest(threads, 5, [&](int t) { Copy(from + t * part, to + t * part, part); });
  const double streaming = 2 * bytes / Fastest(threads, 5, [&](int t) {
                             StreamingCopy(from + t * part, to + t * part, part);
                           });
  constexpr int64_t kRounds = 10'000'000;
  double operations = 0;
  const double seconds = Fastest(threads, 5, [&](int t) {
    const double done = MultiplyAdd(kRounds);
    if (t == 0) operations = done;
  });
  std::printf(
      "{\"threads\": %d, \"read\": %.4g, \"copy\": %.4g, \"streaming_copy\": %.4g, \"flops\": "
      "%.4g, \"vector_bytes\": %d}\n",
      threads, read, copy, streaming, operations * threads / seconds, kBytes);
  return 0;
}
