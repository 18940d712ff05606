// SPDX-License-Identifier: Apache-2.0
#include "attention/isa.h"

#include <algorithm>
#include <iterator>

#include "core/amx.h"

namespace vllm {
namespace {

constexpr const char* kNames[] = {"amx", "amx_fp8", "vec", "vec16", "neon", "vxe", "rvv", "vsx"};

}  // namespace

bool IsAttentionIsa(const std::string& name) {
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

bool HasAttentionIsa(const std::string& name) {
  if (name == "vec" || name == "vec16") return true;
#if defined(__x86_64__)
  if (name == "amx" || name == "amx_fp8") return name == "amx" ? HasAmx() : HasAmxFp8();
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
