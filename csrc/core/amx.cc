// SPDX-License-Identifier: Apache-2.0
#include "core/amx.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace vllm {

#if defined(__x86_64__)

bool HasAmx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsxsave = 1u << 27, kAmxBf16 = 1u << 22, kAmxTile = 1u << 24,
                     kAmxInt8 = 1u << 25;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return false;
  unsigned low = 0, high = 0;
  // XGETBV, spelled so that no compiler flag is needed. The operating system saves the AMX tiles if
  // bits 17 and 18 are set.
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  if ((low & kTileState) != kTileState) return false;
  constexpr unsigned kNeeded = kAmxBf16 | kAmxTile | kAmxInt8;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kNeeded) == kNeeded;
}

bool HasAmxFp8() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxFp8 = 1u << 4;
  return HasAmx() && __get_cpuid_count(0x1E, 1, &a, &b, &c, &d) != 0 && (a & kAmxFp8) != 0;
}

#else

bool HasAmx() { return false; }
bool HasAmxFp8() { return false; }

#endif

bool EnableAmx() {
#if defined(__x86_64__) && defined(__linux__)
  // ARCH_REQ_XCOMP_PERM and the number of the tiles' state, which older headers of Linux lack.
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool enabled =
      HasAmx() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return enabled;
#else
  return false;
#endif
}

}  // namespace vllm
