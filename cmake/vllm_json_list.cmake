# SPDX-License-Identifier: Apache-2.0
#[[
vllm_json_list(<out> <json> <key>)

Sets <out> in the caller to the CMake list of a JSON array's items; objects and arrays inside it are kept as JSON text, with
the semicolons in them escaped.

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
