// SPDX-License-Identifier: Apache-2.0
#include "attention/flash2/run.h"

#include <stdexcept>

#include "core/gpu/stream.h"

namespace vllm::flash2 {
namespace {

// Indexed by [parts][bfloat16][causal]. All pointers are null until the kernels register
// themselves; constant initialisation ends before the first of them does.
struct Unit {
  Launch launch;
  Features features;
};
Unit compiled[kHeadSizeCount][2][2][2];

bool HasKernels(int index) {
  for (const auto& kind : compiled[index]) {
    for (const auto& dtype : kind) {
      if (dtype[0].launch != nullptr || dtype[1].launch != nullptr) return true;
    }
  }
  return false;
}

int GetIndex(int head_size) {
  int index = 0;
  while (kHeadSizes[index] != head_size) ++index;
  return index;
}

const Unit& GetUnit(const Params& params, bool parts) {
  return compiled[GetIndex(params.d_rounded)][parts ? 1 : 0][params.is_bf16 ? 1 : 0]
                 [params.is_causal ? 1 : 0];
}

// Returns the feature that the call needs and the unit lacks, or nullptr.
const char* FindMissingFeature(const Features& features, const Params& params) {
  if (params.alibi_slopes_ptr != nullptr && !features.alibi) return "alibi_slopes";
  if (params.softcap > 0 && !features.softcap) return "softcap";
  if (params.d != params.d_rounded && !features.uneven) return "head sizes other than its own";
  return nullptr;
}

std::string Describe(const Params& params, bool parts) {
  return "heads of " + std::to_string(params.d_rounded) +
         (params.is_bf16 ? ", bfloat16" : ", float16") + (params.is_causal ? ", causal" : "") +
         (parts ? ", pages or parts of the keys" : "");
}

}  // namespace

bool IsCompiled(const Params& params, bool parts) {
  return GetUnit(params, parts).launch != nullptr;
}

void Register(int head_size, bool parts, bool bfloat16, bool causal, Features features,
              Launch launch) {
  compiled[GetIndex(head_size)][parts ? 1 : 0][bfloat16 ? 1 : 0][causal ? 1 : 0] = {launch,
                                                                                    features};
}

int FindCompiledHeadSize(int size) {
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (kHeadSizes[i] >= size && HasKernels(i)) return kHeadSizes[i];
  }
  return 0;
}

std::string ListCompiledHeadSizes() {
  std::string text;
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (HasKernels(i)) text += (text.empty() ? "" : ", ") + std::to_string(kHeadSizes[i]);
  }
  return text.empty() ? "none" : text;
}

int GetBlockRows(int compiled_head_size) {
  return compiled_head_size <= 64 ? 256 : compiled_head_size <= 128 ? 128 : 64;
}

void Run(Params& params, bool parts) {
  parts = parts || params.num_splits > 1;
  const Unit& unit = GetUnit(params, parts);
  if (unit.launch == nullptr) {
    throw std::runtime_error("FlashAttention 2: this library has no kernel for " +
                             Describe(params, parts) +
                             ", expected a library built with VLLM_FA_SET=full");
  }
  if (const char* feature = FindMissingFeature(unit.features, params)) {
    throw std::runtime_error("FlashAttention 2: this library's kernel for " +
                             Describe(params, parts) + " is built without support for " + feature +
                             (params.d == params.d_rounded
                                  ? ""
                                  : " (the head size is " + std::to_string(params.d) + ")") +
                             ", expected a library built with VLLM_FA_SET=full");
  }
  unit.launch(params, static_cast<cudaStream_t>(gpu::GetCurrentStream()));
}

}  // namespace vllm::flash2
