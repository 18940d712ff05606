# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_add_torch_stable()

Defines vllm::torch_stable: libtorch's stable ABI of 2.11, and nothing else of torch. The result runs with every later release.

  VLLM_TORCH_INCLUDE_DIRS=/p/include VLLM_TORCH_CPU_LIBRARY=/p/lib/libtorch_cpu.so
    -> -isystem /p/include -DTORCH_TARGET_VERSION=0x020B000000000000ULL; libtorch_cpu.so in DT_NEEDED
]]
function(vllm_add_torch_stable)
  add_library(vllm_torch_stable INTERFACE)
  add_library(vllm::torch_stable ALIAS vllm_torch_stable)
  target_include_directories(vllm_torch_stable SYSTEM INTERFACE ${VLLM_TORCH_INCLUDE_DIRS})
  target_compile_definitions(vllm_torch_stable INTERFACE TORCH_TARGET_VERSION=0x020B000000000000ULL)
  # Python loads torch with local symbols, so the dependency must be recorded in our own library: link the file, not -ltorch_cpu.
  target_link_libraries(vllm_torch_stable INTERFACE "${VLLM_TORCH_CPU_LIBRARY}")
endfunction()
