// SPDX-License-Identifier: Apache-2.0
// Which of the compiled instruction sets runs. Include it after "hwy/highway.h", outside the
// per-target part of a file.
#pragma once

#include <string>

#include "hwy/targets.h"

namespace vllm {

// The best instruction set that this CPU has, cut to what the environment variable VLLM_CPU_ISA
// allows; decided at the first call.
//
// VLLM_CPU_ISA names an instruction set as CpuIsa() does, in any case: on x86-64 sse2, avx2, avx3
// (AVX-512 of Skylake-X), avx3_zen4 (AVX-512 with bfloat16). Kernels then run with that one, or
// with the next lower one that the CPU has. It serves to reproduce on one machine what another
// computes, and to keep a CPU from clocking down. Unset or empty: no limit.
//
// Throws std::runtime_error when VLLM_CPU_ISA names no compiled instruction set.
const hwy::ChosenTarget& CpuTarget();

// Name of that instruction set in lower case, such as "avx2". Throws as CpuTarget().
std::string CpuIsa();

}  // namespace vllm

// Calls `function`, which HWY_EXPORT made known in this file, for CpuTarget(). Highway's own macro
// consults one choice for the whole process, which belongs to everyone who links its shared
// library; ours is private.
#if HWY_IDE || ((HWY_TARGETS & (HWY_TARGETS - 1)) == 0)
#define VLLM_CPU_DISPATCH(function) HWY_DYNAMIC_DISPATCH(function)
#else
#define VLLM_CPU_DISPATCH(function) (*HWY_DISPATCH_TABLE(function)[::vllm::CpuTarget().GetIndex()])
#endif
