// SPDX-License-Identifier: Apache-2.0
#include "gemm/scaled_mm.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/gpu/stream.h"

namespace vllm {
namespace {

// The units that registered themselves before main(). A function, because the order of their
// constructors is unspecified.
std::vector<ScaledMmKernels>& GetUnits() {
  static std::vector<ScaledMmKernels> units;
  return units;
}

// Calls `each` with each architecture of nvcc's list: 90 for "900".
template <typename Each>
void ForArchitectures(const char* list, Each each) {
  for (char* at = const_cast<char*>(list); *at != '\0'; at += *at == ',') {
    const long architecture = std::strtol(at, &at, 10);
    if (architecture == 0) return;
    each(static_cast<int>(architecture / 10));
  }
}

// Returns the architecture whose code a device runs: the highest one of its major version that does
// not exceed its own, or 0.
int FindServedArchitecture(const ScaledMmKernels& kernels, int64_t capability) {
  int best = 0;
  ForArchitectures(kernels.architectures, [&](int architecture) {
    const bool runs = architecture / 10 == capability / 10 &&
                      (kernels.exact ? architecture == capability : architecture <= capability);
    if (runs && architecture > best) best = architecture;
  });
  return best;
}

// Returns the kernels with the newest code for a device among those that `wanted` accepts, or null.
template <typename Wanted>
const ScaledMmKernels* Find(int64_t capability, Wanted wanted) {
  const ScaledMmKernels* found = nullptr;
  int best = 0;
  for (const ScaledMmKernels& kernels : GetUnits()) {
    const int serving = wanted(kernels) ? FindServedArchitecture(kernels, capability) : 0;
    if (serving > best) {
      best = serving;
      found = &kernels;
    }
  }
  return found;
}

std::string FormatVersion(int64_t capability) {
  return std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

[[noreturn]] void FailWithoutKernels(const ScaledMm& product, int64_t capability) {
  std::string compiled;
  for (const ScaledMmKernels& kernels : GetUnits()) {
    if (kernels.type != product.type || kernels.out_type != product.out_type) continue;
    ForArchitectures(kernels.architectures, [&](int architecture) {
      compiled +=
          (compiled.empty() ? "" : ", ") + FormatVersion(architecture) + (kernels.exact ? "a" : "");
    });
  }
  throw std::runtime_error(
      std::string("cutlass_scaled_mm of ") +
      (product.type == QType::kInt8 ? "int8" : "float8_e4m3fn") +
      ": the device has compute capability " + FormatVersion(capability) +
      ", expected one that kernels were compiled for: " + (compiled.empty() ? "none" : compiled));
}

}  // namespace

void RegisterScaledMm(const ScaledMmKernels& kernels) { GetUnits().push_back(kernels); }

bool SupportsScaledMm(QType type, int64_t capability) {
  return Find(capability, [&](const ScaledMmKernels& kernels) { return kernels.type == type; }) !=
         nullptr;
}

void ScaledMatMul(const ScaledMm& product) {
  if (product.rows == 0 || product.columns == 0) return;
  const int capability = gpu::GetComputeCapability();
  const ScaledMmKernels* found = Find(capability, [&](const ScaledMmKernels& kernels) {
    return kernels.type == product.type && kernels.out_type == product.out_type;
  });
  if (found == nullptr) FailWithoutKernels(product, capability);
  found->run(product);
}

}  // namespace vllm
