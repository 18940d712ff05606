// SPDX-License-Identifier: Apache-2.0
#include "attention/flash2/run.h"

#include <stdexcept>

#include "core/gpu/stream.h"

namespace vllm::flash2 {
namespace {

// All null until the kernels have entered themselves: constant initialisation is over before the first of them does.
// By [parts][bfloat16][causal].
Launch compiled[kHeadSizeCount][2][2][2];

bool HasKernels(int index) {
  for (const auto& kind : compiled[index]) {
    for (const auto& dtype : kind) {
      if (dtype[0] != nullptr || dtype[1] != nullptr) return true;
    }
  }
  return false;
}

int IndexOf(int head_size) {
  int index = 0;
  while (kHeadSizes[index] != head_size) ++index;
  return index;
}

Launch LaunchOf(const Params& params, bool parts) {
  return compiled[IndexOf(params.d_rounded)][parts ? 1 : 0][params.is_bf16 ? 1 : 0][params.is_causal ? 1 : 0];
}

}  // namespace

bool IsCompiled(const Params& params, bool parts) { return LaunchOf(params, parts) != nullptr; }

void Register(int head_size, bool parts, bool bfloat16, bool causal, Launch launch) {
  compiled[IndexOf(head_size)][parts ? 1 : 0][bfloat16 ? 1 : 0][causal ? 1 : 0] = launch;
}

int CompiledHeadSize(int size) {
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (kHeadSizes[i] >= size && HasKernels(i)) return kHeadSizes[i];
  }
  return 0;
}

std::string CompiledHeadSizes() {
  std::string text;
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (HasKernels(i)) text += (text.empty() ? "" : ", ") + std::to_string(kHeadSizes[i]);
  }
  return text.empty() ? "none" : text;
}

int BlockRows(int compiled_head_size) { return compiled_head_size <= 64 ? 256 : compiled_head_size <= 128 ? 128 : 64; }

void Run(Params& params, bool parts) {
  parts = parts || params.num_splits > 1;
  const Launch launch = LaunchOf(params, parts);
  if (launch == nullptr) {
    throw std::runtime_error(std::string("FlashAttention 2: this library has no kernel for heads of ") + std::to_string(params.d_rounded) +
                             (params.is_bf16 ? ", bfloat16" : ", float16") + (params.is_causal ? ", causal" : "") +
                             (parts ? ", pages or parts of the keys" : "") + "; built with VLLM_FA_SET=full it has all");
  }
  launch(params, static_cast<cudaStream_t>(gpu::CurrentStream()));
}

}  // namespace vllm::flash2
