// SPDX-License-Identifier: Apache-2.0
// Selects the instruction sets for which CPU kernels are compiled. Include this file before any
// header of Highway; it is not included again for each target.
#pragma once

// On x86-64, SSE2 stays because dispatch needs one target that runs on every CPU. SSSE3 and SSE4
// are disabled: these kernels gain nothing from them, and the last CPU with them but without AVX2
// is from 2013. AVX3_SPR is disabled: over AVX3_ZEN4 it adds float16 arithmetic, but these kernels
// compute in float32. CPUs that support it run AVX3_ZEN4, and AMX in addition (core/amx.h). Each
// target costs one compilation of every kernel.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_SPR)
