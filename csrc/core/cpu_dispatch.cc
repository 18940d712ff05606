// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cctype>
#include <cstdlib>
#include <stdexcept>

#include "hwy/highway.h"

#include "core/amx.h"
#include "core/cpu_dispatch.h"

namespace vllm {
namespace {

std::string ToLower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// Targets are bits; better targets have lower bits. Returns those that the CPU supports. Highway
// reports AVX3_ZEN4 for AMD's CPUs only, but AVX3_SPR includes all that this target may use.
int64_t FindSupportedTargets() {
  const int64_t supported = hwy::SupportedTargets();
  return (supported & HWY_AVX3_SPR) != 0 ? supported | HWY_AVX3_ZEN4 : supported;
}

// Tiles are no target of Highway: the kernels that use them are compiled for AVX3_ZEN4, and call
// units of their own for the tiles.
constexpr bool kCompilesAmx = VLLM_COMPILES_AMX && (HWY_TARGETS & HWY_AVX3_ZEN4) != 0;
constexpr const char* kAmx = "amx";

struct Allowed {
  int64_t targets = 0;  // of HWY_TARGETS
  bool amx = false;
};

// Returns what the CPU supports and VLLM_CPU_ISA allows.
Allowed FindAllowed() {
  const int64_t usable = FindSupportedTargets() & HWY_TARGETS;
  const bool amx = kCompilesAmx && (usable & HWY_AVX3_ZEN4) != 0;
  const char* variable = std::getenv("VLLM_CPU_ISA");
  const std::string limit = ToLower(variable == nullptr ? "" : variable);
  if (limit.empty() || (kCompilesAmx && limit == kAmx)) return {usable, amx && EnableAmx()};
  std::string known = kCompilesAmx ? kAmx : "";
  for (int64_t rest = HWY_TARGETS; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    const std::string name = ToLower(hwy::TargetName(target));
    if (name == limit) return {(usable & ~(target - 1)) | HWY_STATIC_TARGET, false};
    known += (known.empty() ? "" : ", ") + name;
  }
  throw std::runtime_error("VLLM_CPU_ISA is '" + std::string(variable) + "', expected one of " +
                           known);
}

const Allowed& GetAllowed() {
  static const Allowed allowed = FindAllowed();
  return allowed;
}

struct Choice {
  Choice() { target.Update(GetAllowed().targets); }
  hwy::ChosenTarget target;
};

}  // namespace

const hwy::ChosenTarget& GetCpuTarget() {
  static const Choice choice;
  return choice.target;
}

std::string GetCpuIsa() {
  const Allowed& allowed = GetAllowed();
  return allowed.amx ? kAmx : ToLower(hwy::TargetName(allowed.targets & -allowed.targets));
}

bool UsesAmx() { return GetAllowed().amx; }

bool MultipliesWords() {
#if HWY_ARCH_X86
  // Better targets have lower bits.
  const int64_t targets = GetAllowed().targets;
  return (targets & -targets) <= HWY_AVX3_ZEN4;
#else
  return false;
#endif
}

}  // namespace vllm
