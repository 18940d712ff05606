# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_enable_gpu(<plan.json>)

Enables the language of the plan's GPU code. It is a macro that CMakeLists.txt calls, because a language is enabled per folder, not per function.

  {"language": "CUDA", ...}  -> enable_language(CUDA) without architectures: each kernel has its own
  {"language": "", ...}      -> nothing
]]
macro(vllm_enable_gpu file)
  file(READ "${file}" _vllm_plan)
  string(JSON _vllm_language GET "${_vllm_plan}" language)
  if(_vllm_language)
    # Even if the caller set it: the plan already includes that list, and CMake would add its own flags to those of the plan.
    set(CMAKE_${_vllm_language}_ARCHITECTURES OFF)
    enable_language(${_vllm_language})
  endif()
endmacro()
