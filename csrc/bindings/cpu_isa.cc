// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <torch/csrc/stable/library.h>

#include "hwy/highway.h"

#include "core/cpu_dispatch.h"

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  // An op that upstream does not have. It returns the name of the instruction set that the CPU
  // kernels use, spelled as in VLLM_CPU_ISA. Call it once: torch 2.13 leaks every string that an op
  // returns.
  m.def("cpu_isa() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&vllm::GetCpuIsa));
}
