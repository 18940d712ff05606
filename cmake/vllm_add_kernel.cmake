# SPDX-License-Identifier: Apache-2.0
include_guard()
include(vllm_json_list)
include(vllm_compile_options)
include(vllm_link_library)

#[[
vllm_add_kernel(<extension target> <json of one kernel of the plan> <language of GPU code, or nothing> <whether it is for libtorch>
                <C++ standard> <list of definitions of the extension>)

Adds the kernel's units as a separate OBJECT library and links it into the extension. Definitions and architectures are options of that library,
so the command lines of other units do not change when a kernel is added, removed or compiled for another architecture. Units of the memory classes
Units of the memory classes above `ordinary` are compiled in the Ninja pool `heavy`. Sources of a third-party project are relative to <PROJECT>_SRC_DIR.

  vllm_add_kernel(_C [=[{"name": "norm-cpu", "sources": ["csrc/norm/norm_cpu.cc"], "definitions": ["VLLM_NORM_CPU"], "libraries": ["hwy"],
                         "options": [], "memory": "ordinary"}]=] "" ON 17 "")
    -> OBJECT library _C.norm-cpu: -DVLLM_NORM_CPU, headers of hwy::hwy; _C is linked with libhwy
  vllm_add_kernel(_C [=[{"name": "norm-gpu", "sources": ["csrc/norm/norm.cu"], "options": ["-gencode=arch=compute_80,code=sm_80"], ...}]=] CUDA ON 17 "")
    -> OBJECT library _C.norm-gpu: norm.cu is compiled for 8.0
  vllm_add_kernel(_fa2_C [=[{"name": "fa2-64", "third_party": "flash-attention", "third_party_sources": ["csrc/flash_attn/src/f.cu"], ...}]=] CUDA ON 17 "")
    -> OBJECT library _fa2_C.fa2-64: ${FLASH_ATTENTION_SRC_DIR}/csrc/flash_attn/src/f.cu as well
]]
function(
  vllm_add_kernel
  extension
  json
  language
  torch
  standard
  shared
)
  foreach(key name memory third_party)
    string(JSON ${key} GET "${json}" ${key})
  endforeach()
  foreach(
    key
    sources
    third_party_sources
    definitions
    libraries
    options
  )
    vllm_json_list(${key} "${json}" ${key})
  endforeach()

  set(target "${extension}.${name}")
  list(TRANSFORM sources PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  if(third_party)
    string(TOUPPER "${third_party}_SRC_DIR" folder)
    string(REPLACE "-" "_" folder "${folder}")
    if(NOT IS_DIRECTORY "${${folder}}")
      message(
        FATAL_ERROR
        "${folder}: '${${folder}}' is not a folder\n  expected: the sources of ${third_party}\n  to do: vllm-build fetch ${third_party}"
      )
    endif()
    list(TRANSFORM third_party_sources PREPEND "${${folder}}/")
    list(APPEND sources ${third_party_sources})
  endif()
  add_library(${target} OBJECT ${sources})
  vllm_compile_options(${target} ${standard})
  target_compile_definitions(${target} PRIVATE ${shared} ${definitions})
  if(language)
    list(FILTER sources INCLUDE REGEX "\\.cu$")
    set_source_files_properties(${sources} PROPERTIES LANGUAGE ${language})
    foreach(option IN LISTS options)
      target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:${language}>:${option}>)
    endforeach()
  endif()
  if(NOT memory STREQUAL "ordinary")
    set_target_properties(${target} PROPERTIES JOB_POOL_COMPILE heavy)
  endif()
  if(torch)
    target_link_libraries(${target} PRIVATE vllm::torch_stable)
  endif()
  foreach(library IN LISTS libraries)
    vllm_link_library(${target} ${library} ${extension})
  endforeach()
  target_link_libraries(${extension} PRIVATE ${target})
endfunction()
