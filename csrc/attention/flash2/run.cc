// SPDX-License-Identifier: Apache-2.0
#include "attention/flash2/run.h"

#include "core/gpu/stream.h"

namespace vllm::flash2 {
namespace {

// All null until the kernels have entered themselves: constant initialisation is over before the first of them does.
Kernels compiled[kHeadSizeCount];

bool IsCompiled(int index) { return compiled[index].whole[0][0] != nullptr; }

int IndexOf(int head_size) {
  int index = 0;
  while (kHeadSizes[index] != head_size) ++index;
  return index;
}

}  // namespace

void Register(int head_size, const Kernels& kernels) { compiled[IndexOf(head_size)] = kernels; }

int CompiledHeadSize(int size) {
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (kHeadSizes[i] >= size && IsCompiled(i)) return kHeadSizes[i];
  }
  return 0;
}

std::string CompiledHeadSizes() {
  std::string text;
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (IsCompiled(i)) text += (text.empty() ? "" : ", ") + std::to_string(kHeadSizes[i]);
  }
  return text.empty() ? "none" : text;
}

int BlockRows(int compiled_head_size) { return compiled_head_size <= 64 ? 256 : compiled_head_size <= 128 ? 128 : 64; }

void Run(Params& params, bool parts) {
  const Kernels& kernels = compiled[IndexOf(params.d_rounded)];
  const auto& launches = parts || params.num_splits > 1 ? kernels.parts : kernels.whole;
  launches[params.is_bf16 ? 1 : 0][params.is_causal ? 1 : 0](params, static_cast<cudaStream_t>(gpu::CurrentStream()));
}

}  // namespace vllm::flash2
