// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace vllm {

// Returns whether `name` is upstream's name of an instruction set for attention: amx, amx_fp8, vec,
// vec16, neon, vxe, rvv or vsx.
bool IsAttentionIsa(const std::string& name);

// Returns whether this CPU and its operating system support the instruction set of that name. vec
// and vec16 are supported everywhere. Returns false for unknown names.
bool HasAttentionIsa(const std::string& name);

}  // namespace vllm
