# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_link_flash_attention(<target>)

What units of FlashAttention 2 and those that call them are compiled with. Its headers ask for three of torch's CUDA headers; csrc/attention/flash_shims
stands in for these, so that neither ATen nor c10 is used.

  FLASH_ATTENTION_SRC_DIR=/b/inputs/flash-attention CUTLASS_INCLUDE_DIR=/b/inputs/cutlass-include
    -> -isystem csrc/attention/flash_shims -isystem /b/inputs/flash-attention/csrc/flash_attn/src -isystem /b/inputs/cutlass-include; --use_fast_math …
]]
function(vllm_link_flash_attention target)
  foreach(name FLASH_ATTENTION_SRC_DIR CUTLASS_INCLUDE_DIR)
    if(NOT IS_DIRECTORY "${${name}}")
      message(FATAL_ERROR "${name}: '${${name}}' is no folder\n  expected: the sources of FlashAttention\n  to do: vllm-build fetch flash-attention, then configure again")
    endif()
  endforeach()
  # System folders: warnings of code that is not ours are nobody's here.
  target_include_directories(${target} SYSTEM PRIVATE
    "${CMAKE_CURRENT_SOURCE_DIR}/csrc/attention/flash_shims" "${FLASH_ATTENTION_SRC_DIR}/csrc/flash_attn/src" "${CUTLASS_INCLUDE_DIR}"
    ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  # The kernels are written, and their errors known, for joined products and sums and for the hardware's exponential.
  set_target_properties(${target} PROPERTIES VLLM_FAST_MATH ON)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--use_fast_math;--expt-relaxed-constexpr;--expt-extended-lambda>")
endfunction()
