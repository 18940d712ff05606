// SPDX-License-Identifier: Apache-2.0
#include "attention/flash3/run.h"

#include "core/gpu/stream.h"

namespace vllm::flash3 {
namespace {

struct Kernel {
  Launch launch;
  bool appends;
};

// All pointers are null until the kernels register themselves; constant initialisation ends before
// the first of them does.
Kernel compiled[kHeadSizeCount][2][kVariantCount];
CombineKernels combine;

// The kernels are in other units, which know their architectures. The records in kernels.toml have
// the same list.
constexpr const char* kArchitectures = "900";

cudaStream_t GetStream() { return static_cast<cudaStream_t>(gpu::GetCurrentStream()); }

int FindHeadSizeIndex(int head_size) {
  int index = 0;
  while (kHeadSizes[index] != head_size) ++index;
  return index;
}

Kernel& GetKernel(int head_size, bool bfloat16, Variant variant) {
  return compiled[FindHeadSizeIndex(head_size)][bfloat16 ? 1 : 0][GetIndex(variant)];
}

const Kernel& GetKernel(const Params& params, Variant variant) {
  return GetKernel(params.d_rounded, params.is_bf16, variant);
}

bool HasKernels(int index, bool bfloat16) {
  for (const Kernel& kernel : compiled[index][bfloat16 ? 1 : 0]) {
    if (kernel.launch != nullptr) return true;
  }
  return false;
}

void Check(cudaError_t error) {
  if (error != cudaSuccess)
    gpu::FailLaunch("FlashAttention 3", static_cast<int>(error), kArchitectures);
}

}  // namespace

void Register(int head_size, bool bfloat16, Variant variant, Launch launch, bool appends) {
  GetKernel(head_size, bfloat16, variant) = {launch, appends};
}

void RegisterCombine(const CombineKernels& kernels) { combine = kernels; }

int FindCompiledHeadSize(int size, bool bfloat16) {
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (kHeadSizes[i] >= size && HasKernels(i, bfloat16)) return kHeadSizes[i];
  }
  return 0;
}

std::string ListCompiledHeadSizes(bool bfloat16) {
  std::string text;
  for (int i = 0; i < kHeadSizeCount; ++i) {
    if (HasKernels(i, bfloat16)) text += (text.empty() ? "" : ", ") + std::to_string(kHeadSizes[i]);
  }
  return text.empty() ? "none" : text;
}

bool IsCompiled(const Params& params, Variant variant) {
  return GetKernel(params, variant).launch != nullptr;
}

bool CanAppend(const Params& params, Variant variant) { return GetKernel(params, variant).appends; }

bool CanCombine() { return combine.launches[0][0] != nullptr; }

std::string DescribeVariant(const Params& params, Variant variant) {
  std::string text = "heads of " + std::to_string(params.d_rounded) +
                     (params.is_bf16 ? ", bfloat16" : ", float16");
  if (variant.split) text += ", split keys";
  if (variant.paged) text += ", pages";
  if (variant.softcap) text += ", a softcap";
  // Split or paged variants always pack heads.
  if (variant.packed && !variant.split && !variant.paged) text += ", packed heads";
  return text;
}

void Run(Params* params, Variant variant) {
  const cudaStream_t stream = GetStream();
  GetKernel(*params, variant).launch(*params, stream);
  if (variant.split) {
    // This launch also resets the counter from which the previous kernel took its tiles.
    combine.launches[params->is_bf16 ? 1 : 0][params->dv > 64 ? 1 : 0](*params, stream, true);
  } else if (params->skip_scheduler_metadata_computation) {
    // The counter is in the caller's schedule, which the caller passes again.
    Check(cudaMemsetAsync(params->tile_count_semaphore, 0, sizeof(int), stream));
  }
}

void DivideWork(Params* params, int rows, int keys) {
  prepare_varlen_num_blocks(*params, GetStream(), params->pack_gqa, rows, keys, false);
  Check(cudaGetLastError());
}

}  // namespace vllm::flash3
