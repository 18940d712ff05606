// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <cctype>
#include <cstdlib>
#include <stdexcept>

#include "hwy/highway.h"

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

// Returns the HWY_TARGETS that the CPU supports and VLLM_CPU_ISA allows.
int64_t FindAllowedTargets() {
  const int64_t usable = FindSupportedTargets() & HWY_TARGETS;
  const char* variable = std::getenv("VLLM_CPU_ISA");
  if (variable == nullptr || *variable == '\0') return usable;
  std::string known;
  for (int64_t rest = HWY_TARGETS; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    const std::string name = ToLower(hwy::TargetName(target));
    if (name == ToLower(variable)) return (usable & ~(target - 1)) | HWY_STATIC_TARGET;
    known += (known.empty() ? "" : ", ") + name;
  }
  throw std::runtime_error("VLLM_CPU_ISA is '" + std::string(variable) + "', expected one of " +
                           known);
}

int64_t GetAllowedTargets() {
  static const int64_t allowed = FindAllowedTargets();
  return allowed;
}

struct Choice {
  Choice() { target.Update(GetAllowedTargets()); }
  hwy::ChosenTarget target;
};

}  // namespace

const hwy::ChosenTarget& GetCpuTarget() {
  static const Choice choice;
  return choice.target;
}

std::string GetCpuIsa() {
  const int64_t allowed = GetAllowedTargets();
  return ToLower(hwy::TargetName(allowed & -allowed));
}

}  // namespace vllm
