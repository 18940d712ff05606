# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_link_cutlass(<target>)

What units that are written with CUTLASS's templates are compiled with: its headers, and functions that its device code calls although they are
not declared for devices.

  CUTLASS_INCLUDE_DIR=/b/inputs/cutlass-include
    -> -isystem /b/inputs/cutlass-include --expt-relaxed-constexpr
]]
function(vllm_link_cutlass target)
  if(NOT IS_DIRECTORY "${CUTLASS_INCLUDE_DIR}")
    message(
      FATAL_ERROR
      "CUTLASS_INCLUDE_DIR: '${CUTLASS_INCLUDE_DIR}' is no folder\n  expected: CUTLASS's headers\n  to do: vllm-build fetch cutlass, then configure again"
    )
  endif()
  # System folders: warnings of code that is not ours are nobody's here.
  target_include_directories(${target} SYSTEM PRIVATE "${CUTLASS_INCLUDE_DIR}" ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>")
endfunction()
