// SPDX-License-Identifier: Apache-2.0
// Selects which of the compiled instruction sets runs. Include this file after "hwy/highway.h",
// outside the per-target part of a file.
#pragma once

#include <string>

#include "hwy/targets.h"

namespace vllm {

// Returns the best instruction set that this CPU supports and the environment variable VLLM_CPU_ISA
// allows. It is determined at the first call.
//
// VLLM_CPU_ISA is the name of an instruction set as GetCpuIsa() returns it, in upper or lower case;
// on x86-64: sse2, avx2, avx3 (AVX-512 of Skylake-X), avx3_zen4 (AVX-512 with bfloat16), amx (that
// and the matrix instructions). Kernels then use that instruction set, or the next lower one that
// the CPU supports. Use it to reproduce another machine's results, or to keep a CPU from reducing
// its clock frequency. Unset or empty: no limit.
//
// Throws std::runtime_error if VLLM_CPU_ISA names no compiled instruction set.
const hwy::ChosenTarget& GetCpuTarget();

// Returns the name of that instruction set in lower case, such as "avx2". Throws as GetCpuTarget()
// does.
std::string GetCpuIsa();

// Returns whether matrix products use AMX: GetCpuIsa() is "amx". Throws as GetCpuTarget() does.
bool UsesAmx();

// Returns whether GetCpuTarget() multiplies words of two bfloat16 or four int8 elements and adds
// the products to a sum: AVX-512 with bfloat16 and VNNI. Throws as GetCpuTarget() does.
bool MultipliesWords();

}  // namespace vllm

// Calls `function`, which this file has passed to HWY_EXPORT, for GetCpuTarget(). Highway's own
// macro uses one choice for the whole process, shared by all users of its shared library; this one
// is private.
#if HWY_IDE || ((HWY_TARGETS & (HWY_TARGETS - 1)) == 0)
#define VLLM_CPU_DISPATCH(function) HWY_DYNAMIC_DISPATCH(function)
#else
#define VLLM_CPU_DISPATCH(function) \
  (*HWY_DISPATCH_TABLE(function)[::vllm::GetCpuTarget().GetIndex()])
#endif
