# SPDX-License-Identifier: Apache-2.0
#[[
vllm_json_list(<out> <json> <key>)

Sets <out> in the caller to a CMake list of the items of a JSON array. Nested objects and arrays stay JSON text with escaped
semicolons.

  vllm_json_list(sources [=[{"sources": ["a.cc", "b.cc"]}]=] sources)
    -> sources = a.cc;b.cc
]]
function(vllm_json_list out json key)
  string(JSON length LENGTH "${json}" ${key})
  set(items "")
  if(length GREATER 0)
    math(EXPR last "${length} - 1")
    foreach(index RANGE ${last})
      string(JSON item GET "${json}" ${key} ${index})
      string(REPLACE ";" "\\;" item "${item}")
      list(APPEND items "${item}")
    endforeach()
  endif()
  set(${out} "${items}" PARENT_SCOPE)
endfunction()
