# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_link_cutlass(<target>)

Compiles a target with CUTLASS's headers. Its device code calls constexpr functions that are not declared for devices, which nvcc allows only
with an option.

  CUTLASS_INCLUDE_DIR=/b/inputs/cutlass-include
    -> -isystem /b/inputs/cutlass-include --expt-relaxed-constexpr
]]
function(vllm_link_cutlass target)
  if(NOT IS_DIRECTORY "${CUTLASS_INCLUDE_DIR}")
    message(
      FATAL_ERROR
      "CUTLASS_INCLUDE_DIR: '${CUTLASS_INCLUDE_DIR}' is not a folder\n  expected: CUTLASS's headers\n  to do: vllm-build fetch cutlass, then configure again"
    )
  endif()
  # As system folders, because warnings in third-party code are of no use here.
  target_include_directories(${target} SYSTEM PRIVATE "${CUTLASS_INCLUDE_DIR}" ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>")
endfunction()
