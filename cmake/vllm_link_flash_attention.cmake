# SPDX-License-Identifier: Apache-2.0
include_guard()
include(vllm_link_cutlass)

#[[
vllm_link_flash_attention(<target> <version: 2 or 3>)

Compiles a target with FlashAttention: its own units and those that call them. Headers of version 2 include three of torch's CUDA headers;
csrc/attention/flash_shims replaces these, so that neither ATen nor c10 is used.

  FLASH_ATTENTION_SRC_DIR=/b/inputs/flash-attention CUTLASS_INCLUDE_DIR=/b/inputs/cutlass-include
    2 -> -isystem csrc/attention/flash_shims -isystem /b/inputs/flash-attention/csrc/flash_attn/src -isystem /b/inputs/cutlass-include; --use_fast_math …
    3 -> the same with /b/inputs/flash-attention/hopper
]]
function(vllm_link_flash_attention target version)
  if(NOT IS_DIRECTORY "${FLASH_ATTENTION_SRC_DIR}")
    message(
      FATAL_ERROR
      "FLASH_ATTENTION_SRC_DIR: '${FLASH_ATTENTION_SRC_DIR}' is not a folder\n  expected: the sources of FlashAttention\n  to do: vllm-build fetch flash-attention, then configure again"
    )
  endif()
  set(folder_2 csrc/flash_attn/src)
  set(folder_3 hopper)
  if(NOT DEFINED folder_${version})
    message(FATAL_ERROR "there are no kernels of FlashAttention '${version}'\n  expected: 2 or 3")
  endif()
  # As system folders, because warnings in third-party code are of no use here.
  target_include_directories(
    ${target}
    SYSTEM
    PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc/attention/flash_shims" "${FLASH_ATTENTION_SRC_DIR}/${folder_${version}}"
  )
  # The kernels are written for fused products and sums and for the hardware's exponential, and their errors were measured with these.
  set_target_properties(${target} PROPERTIES VLLM_FAST_MATH ON)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--use_fast_math>")
  vllm_link_cutlass(${target})
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-extended-lambda>")
endfunction()
