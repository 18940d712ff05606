# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_link_engine(<target> <extension target>)

Compiles a target of the engine's sources as the engine's own build does: with its headers before ours, CUTLASS's headers, fused products and sums,
and the name of the module. Its warnings are upstream's, so they are off.

  vllm_link_engine(_C_stable_libtorch.engine _C_stable_libtorch)
    -> -I/b/inputs/engine-kernels/csrc -isystem /b/inputs/engine-cutlass/include -DTORCH_EXTENSION_NAME=_C_stable_libtorch -DUSE_CUDA ...
       --expt-relaxed-constexpr --expt-extended-lambda -w
]]
function(vllm_link_engine target extension)
  foreach(name ENGINE_KERNELS_SRC_DIR ENGINE_CUTLASS_DIR)
    if(NOT IS_DIRECTORY "${${name}}")
      message(
        FATAL_ERROR
        "${name}: '${${name}}' is not a folder\n  expected: the engine's sources and CUTLASS\n  to do: vllm-build fetch engine-kernels engine-cutlass"
      )
    endif()
  endforeach()
  target_include_directories(${target} BEFORE PRIVATE "${ENGINE_KERNELS_SRC_DIR}/csrc")
  target_include_directories(
    ${target}
    SYSTEM
    PRIVATE
      "${ENGINE_CUTLASS_DIR}/include"
      "${ENGINE_CUTLASS_DIR}/tools/util/include"
      "${VLLM_PYTHON_INCLUDE_DIR}"
      ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}
  )
  target_compile_definitions(
    ${target}
    PRIVATE
      TORCH_EXTENSION_NAME=${extension}
      USE_CUDA
      ENABLE_FP8
      CUTLASS_ENABLE_DIRECT_CUDA_DRIVER_CALL=1 # the driver's functions come from engine/torch_forwarding.cc
      $<$<BOOL:${VLLM_ABI3}>:Py_LIMITED_API=0x030A0000>
  )
  set_target_properties(${target} PROPERTIES VLLM_FAST_MATH ON)
  target_compile_options(
    ${target}
    PRIVATE
      -w
      "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../csrc/engine/weak_python.h>"
      "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>"
      "$<$<COMPILE_LANGUAGE:CUDA>:--expt-extended-lambda>"
  )
endfunction()
