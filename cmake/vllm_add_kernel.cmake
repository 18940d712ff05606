# SPDX-License-Identifier: Apache-2.0
include_guard()
include(vllm_json_list)
include(vllm_compile_options)
include(vllm_link_library)

#[[
vllm_add_kernel(<extension target> <json of one kernel of the plan>)

Adds the kernel's units as an OBJECT library of their own and links it into the extension. Its macro is a definition of that library, so
no other unit's command line changes when the kernel is switched.

  vllm_add_kernel(_C [=[{"name": "norm-cpu", "sources": ["csrc/norm/norm_cpu.cc"], "definitions": ["VLLM_NORM_CPU"], "libraries": ["hwy"]}]=])
    -> OBJECT library _C.norm-cpu: -DVLLM_NORM_CPU, headers of hwy::hwy; _C is linked with libhwy
]]
function(vllm_add_kernel extension json)
  string(JSON name GET "${json}" name)
  foreach(key sources definitions libraries)
    vllm_json_list(${key} "${json}" ${key})
  endforeach()

  set(target "${extension}.${name}")
  list(TRANSFORM sources PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  add_library(${target} OBJECT ${sources})
  vllm_compile_options(${target})
  target_compile_definitions(${target} PRIVATE ${definitions})
  target_link_libraries(${target} PRIVATE vllm::torch_stable)
  foreach(library IN LISTS libraries)
    vllm_link_library(${target} ${library})
  endforeach()
  target_link_libraries(${extension} PRIVATE ${target})
endfunction()
