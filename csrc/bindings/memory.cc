// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>

#include <exception>

#include "bindings/arguments.h"
#include "memory/numa.h"

namespace vllm {
namespace {

void InitCpuMemoryEnv(std::vector<int64_t> node_ids) {
  const char* op = "init_cpu_memory_env";
  std::string warning;
  try {
    warning = BindMemory(node_ids);
  } catch (const std::exception& error) {
    FailOp(op, error.what());
  }
  if (!warning.empty()) {
    const std::string text = std::string(op) + ": " + warning;
    aoti_torch_warn(__func__, __FILE__, static_cast<uint32_t>(__LINE__), text.c_str());
  }
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) { m.def("init_cpu_memory_env(SymInt[] node_ids) -> ()"); }

// No tensor argument selects a dispatch key.
STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) {
  m.impl("init_cpu_memory_env", TORCH_BOX(&vllm::InitCpuMemoryEnv));
}
