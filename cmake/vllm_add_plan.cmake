# SPDX-License-Identifier: Apache-2.0
include_guard()
include(vllm_json_list)
include(vllm_add_extension)

#[[
vllm_add_plan(<plan.json>)

Adds every extension of the plan, and configures again when the plan changes. A plan of another format is an error.

  {"format": 1, "device": "cpu", "extensions": [{"name": "vllm._C", ...}], ...}
    -> vllm_add_extension() for vllm._C: target _C
]]
function(vllm_add_plan file)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  file(READ "${file}" plan)
  string(JSON format GET "${plan}" format)
  if(NOT format EQUAL 1)
    message(FATAL_ERROR "${file} has format ${format}, expected 1\n  to do: write it with the vllm_build of this source tree")
  endif()
  vllm_json_list(extensions "${plan}" extensions)
  foreach(extension IN LISTS extensions)
    vllm_add_extension("${extension}")
  endforeach()
endfunction()
