# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_enable_gpu(<plan.json>)

Enables the language of the plan's GPU code. A macro, called from CMakeLists.txt: a language is enabled for a folder, not for a function.

  {"language": "CUDA", ...}  -> enable_language(CUDA), for no architecture: each kernel brings its own
  {"language": "", ...}      -> nothing
]]
macro(vllm_enable_gpu file)
  file(READ "${file}" _vllm_plan)
  string(JSON _vllm_language GET "${_vllm_plan}" language)
  if(_vllm_language)
    # Also where the caller set it: the plan has heeded that list, and flags of CMake's own would come on top of the plan's.
    set(CMAKE_${_vllm_language}_ARCHITECTURES OFF)
    enable_language(${_vllm_language})
  endif()
endmacro()
