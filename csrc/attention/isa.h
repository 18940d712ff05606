// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace vllm {

// Upstream's name of an instruction set that attention may be asked for: amx, amx_fp8, vec, vec16,
// neon, vxe, rvv or vsx.
bool IsAttentionIsa(const std::string& name);

// Whether this CPU, and its operating system, run the instruction set of that name; vec and vec16
// stand for what every CPU has. False for a name that is none.
bool HasAttentionIsa(const std::string& name);

}  // namespace vllm
