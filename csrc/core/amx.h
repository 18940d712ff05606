// SPDX-License-Identifier: Apache-2.0
// AMX, the matrix instructions of some x86-64 CPUs. They work on tiles: registers of 16 rows of 64
// bytes.
#pragma once

// Whether the compiler has the instructions.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define VLLM_COMPILES_AMX 1
#else
#define VLLM_COMPILES_AMX 0
#endif

namespace vllm {

// Returns whether the CPU multiplies tiles of bfloat16 and of int8 and the operating system saves
// tiles.
bool HasAmx();

// Returns whether it also multiplies tiles of float8.
bool HasAmxFp8();

// Asks the kernel, once, to let this process use tiles, and returns whether it does. Linux refuses
// tiles to a process that has not asked, with SIGILL. The permission holds for all threads, also
// for those that exist already.
bool EnableAmx();

}  // namespace vllm
