// SPDX-License-Identifier: Apache-2.0
// Measures the limits of this machine with all threads: reading, copying, and multiply-adding of
// float32, bfloat16 and int8 with the best instructions of the CPU. Prints one JSON object.
//
// usage: limits [threads]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#include <sys/syscall.h>
#include <unistd.h>
#define TILES 1
#else
#define TILES 0
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
    factor[lane] = 0.9f / static_cast<float>(lane + 1);
    term[lane] = 0.7f / static_cast<float>(lane + 3);
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

#if TILES || defined(__AVX512BF16__)
// Random data: a CPU is up to a fourth faster with zeros, which take less power. Of bfloat16,
// numbers of both signs around one.
template <bool kInt8>
void FillRandom(uint8_t* data, size_t bytes) {
  uint32_t random = 1;
  for (size_t i = 0; i < bytes; i += 2) {
    random = random * 1664525 + 1013904223;
    data[i] = static_cast<uint8_t>(random >> 24);
    data[i + 1] = kInt8 ? static_cast<uint8_t>(random >> 16)
                        : static_cast<uint8_t>(0x3F | (random >> 16 & 0x80));
  }
}
#endif

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
typedef int32_t Integers __attribute__((vector_size(64), may_alias));

Vector AddProducts(Vector sum, __m512i a, __m512i b) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

Integers AddProducts(Integers sum, __m512i a, __m512i b) {
  return (Integers)_mm512_dpbusd_epi32((__m512i)sum, a, b);
}

// Sixteen chains of dot products: of pairs of bfloat16, or of four int8. A fold instead of a loop
// keeps the sums in registers: GCC 12 stores those of an unrolled loop at each step.
template <bool kInt8, typename Sum, size_t... kChain>
double MultiplyChains(int64_t rounds, std::index_sequence<kChain...>) {
  alignas(64) static thread_local uint8_t data[8 * 64];
  FillRandom<kInt8>(data, sizeof(data));
  __m512i a[4], b[4];
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_load_si512(data + 128 * i);
    b[i] = _mm512_load_si512(data + 128 * i + 64);
  }
  Sum sums[sizeof...(kChain)] = {};
  for (int64_t i = 0; i < rounds; ++i)
    ((sums[kChain] = AddProducts(sums[kChain], a[kChain / 4], b[kChain % 4])), ...);
  sink = static_cast<float>((sums[kChain] + ...)[0]);
  return static_cast<double>(sizeof...(kChain)) * 2 * 16 * (kInt8 ? 4 : 2) * rounds;
}

template <bool kInt8>
double MultiplyWords(int64_t rounds) {
  constexpr auto kChains = std::make_index_sequence<16>();
  if constexpr (kInt8) return MultiplyChains<true, Integers>(rounds, kChains);
  return MultiplyChains<false, Vector>(rounds, kChains);
}
#endif

#if TILES
struct alignas(64) Tiles {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Products of tiles that are loaded from the first-level cache, two of each operand at a time.
template <bool kInt8>
double MultiplyTiles(int64_t rounds) {
  alignas(64) static thread_local uint8_t data[16384];
  FillRandom<kInt8>(data, sizeof(data));
  const Tiles tiles;
  asm volatile("" : : "r"(&tiles) : "memory");  // GCC 12 believes that only eight bytes are read
  _tile_loadconfig(&tiles);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < rounds; ++i) {
    const uint8_t* from = data + (i & 3) * 4096;
    _tile_loadd(6, from, 64);
    _tile_loadd(4, from + 1024, 64);
    _tile_loadd(7, from + 2048, 64);
    _tile_loadd(5, from + 3072, 64);
    if constexpr (kInt8) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_release();
  return 4.0 * 2 * 16 * 16 * (kInt8 ? 64 : 32) * rounds;
}

// Asks Linux to let this process use tiles; without it, they are a SIGILL.
bool EnableTiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#endif

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
  const double flops = operations * threads / seconds;
  // Without better instructions, narrower numbers are multiplied as float32.
  double bf16 = flops, int8 = flops;
  [[maybe_unused]] const auto measure = [&](double& best, int64_t rounds, double (*run)(int64_t)) {
    double done = 0;
    const double time = Fastest(threads, 5, [&](int t) {
      const double count = run(rounds);
      if (t == 0) done = count;
    });
    best = std::max(best, done * threads / time);
  };
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
  measure(bf16, kRounds, MultiplyWords<false>);
  measure(int8, kRounds, MultiplyWords<true>);
#endif
#if TILES
  if (EnableTiles()) {
    measure(bf16, kRounds / 20, MultiplyTiles<false>);
    measure(int8, kRounds / 20, MultiplyTiles<true>);
  }
#endif
  std::printf(
      "{\"threads\": %d, \"read\": %.4g, \"copy\": %.4g, \"streaming_copy\": %.4g, \"flops\": "
      "%.4g, \"bf16\": %.4g, \"int8\": %.4g, \"vector_bytes\": %d}\n",
      threads, read, copy, streaming, flops, bf16, int8, kBytes);
  return 0;
}
