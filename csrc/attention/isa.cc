// SPDX-License-Identifier: Apache-2.0
#include "attention/isa.h"

#include <algorithm>
#include <iterator>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace vllm {
namespace {

constexpr const char* kNames[] = {"amx", "amx_fp8", "vec", "vec16", "neon", "vxe", "rvv", "vsx"};

#if defined(__x86_64__)
bool HasAmx(bool fp8) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsxsave = 1u << 27, kAmxBf16 = 1u << 22, kAmxTile = 1u << 24,
                     kAmxFp8 = 1u << 4;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return false;
  unsigned low = 0, high = 0;
  // XGETBV, spelled so that no compiler flag is needed. The operating system saves the AMX tiles if
  // bits 17 and 18 are set.
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  if ((low & kTileState) != kTileState) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxTile) == 0 || (d & kAmxBf16) == 0)
    return false;
  if (!fp8) return true;
  return __get_cpuid_count(0x1E, 1, &a, &b, &c, &d) != 0 && (a & kAmxFp8) != 0;
}
#endif

}  // namespace

bool IsAttentionIsa(const std::string& name) {
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

bool HasAttentionIsa(const std::string& name) {
  if (name == "vec" || name == "vec16") return true;
#if defined(__x86_64__)
  if (name == "amx" || name == "amx_fp8") return HasAmx(name == "amx_fp8");
#elif defined(__aarch64__)
  if (name == "neon") return true;
#elif defined(__s390x__) && defined(__VEC__)
  if (name == "vxe") return true;
#elif defined(__powerpc64__) && defined(__VSX__)
  if (name == "vsx") return true;
#elif defined(__riscv_v)
  if (name == "rvv") return true;
#endif
  return false;
}

}  // namespace vllm
