# SPDX-License-Identifier: Apache-2.0
include_guard()
include(vllm_json_list)
include(vllm_add_extension)

#[[
vllm_add_plan(<plan.json>)

Adds every extension of the plan, and makes CMake run again when the plan changes. A plan with another format version is an error.

  {"format": 4, "device": "cpu", "language": "", "extensions": [{"name": "vllm._C", ...}], ...}
    -> vllm_add_extension() for vllm._C: target _C
]]
function(vllm_add_plan file)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  file(READ "${file}" plan)
  string(JSON format GET "${plan}" format)
  if(NOT format EQUAL 4)
    message(FATAL_ERROR "${file} has format ${format}, expected 4\n  to do: write it with the vllm_build of this source tree")
  endif()
  string(JSON language GET "${plan}" language)
  string(JSON VLLM_PLAN_DEVICE GET "${plan}" device) # read by vllm_compile_options
  if(NOT VLLM_HEAVY_JOBS MATCHES "^[1-9][0-9]*$")
    message(FATAL_ERROR "VLLM_HEAVY_JOBS is '${VLLM_HEAVY_JOBS}'\n  expected: a whole number of at least 1")
  endif()
  # Ninja's file of rules has the depth outside the command lines, so nothing is compiled again when it changes.
  set_property(GLOBAL APPEND PROPERTY JOB_POOLS heavy=${VLLM_HEAVY_JOBS})
  vllm_json_list(extensions "${plan}" extensions)
  foreach(extension IN LISTS extensions)
    vllm_add_extension("${extension}" "${language}")
  endforeach()
endfunction()
