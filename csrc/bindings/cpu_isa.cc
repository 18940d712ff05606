// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <torch/csrc/stable/library.h>

#include "hwy/highway.h"

#include "core/cpu_dispatch.h"

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  // Not an op of upstream's: the name of the instruction set that the CPU kernels run with, as
  // VLLM_CPU_ISA spells it. Ask once: torch 2.13 leaks every string that an op returns.
  m.def("cpu_isa() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&vllm::CpuIsa));
}
