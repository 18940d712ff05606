// SPDX-License-Identifier: Apache-2.0
// Chooses the instruction sets that CPU kernels are compiled for. Include it before any header of
// Highway; it is re-read for no target.
#pragma once

// On x86-64 SSE2 stays, since dispatch needs one target that runs everywhere. SSSE3 and SSE4 go:
// they add nothing that these kernels would gain from, and the last CPU that has them without AVX2
// is of 2013. AVX3_SPR goes: over AVX3_ZEN4 it adds arithmetic in float16, and ours is in float32;
// CPUs that have it run AVX3_ZEN4. Each target costs a compilation of every kernel.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_SPR)
