# SPDX-License-Identifier: Apache-2.0
include_guard()
include(vllm_json_list)
include(vllm_add_kernel)
include(vllm_compile_options)

#[[
vllm_add_extension(<json of one extension of the plan> <language of GPU code, or nothing>)

Adds a MODULE library named after the extension and its install rule. The library consists of its own units and one OBJECT library per kernel.

  {"name": "vllm._C", "module": "_C", "folder": "vllm", "component": "vllm-kernels", "sources": ["csrc/bindings/module.cc"],
   "kernels": [{"name": "norm-cpu", ...}], "torch": true,
   "standard": 17, "definitions": []}
    -> target _C, file _C.abi3.so, installed to vllm/ by `cmake --install <build folder> --component vllm-kernels`
]]
function(vllm_add_extension json language)
  foreach(
    key
    module
    folder
    component
    torch
    standard
  )
    string(JSON ${key} GET "${json}" ${key})
  endforeach()
  vllm_json_list(sources "${json}" sources)
  vllm_json_list(kernels "${json}" kernels)
  vllm_json_list(definitions "${json}" definitions)

  list(TRANSFORM sources PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  add_library(${module} MODULE ${sources})
  vllm_compile_options(${module} ${standard})
  target_compile_definitions(${module} PRIVATE VLLM_MODULE_NAME=${module} $<$<BOOL:${VLLM_ABI3}>:Py_LIMITED_API=0x030A0000>)
  target_include_directories(${module} SYSTEM PRIVATE "${VLLM_PYTHON_INCLUDE_DIR}")
  if(torch)
    if(standard GREATER 17)
      # torch's libraries export copies of C++20's string functions. The linker takes the first library that has a symbol.
      target_link_libraries(${module} PRIVATE stdc++)
    endif()
    target_link_libraries(${module} PRIVATE vllm::torch_stable)
    target_link_options(${module} PRIVATE LINKER:-z,defs) # report a missing symbol here, not on the user's machine
  endif() # a plain Python module gets its symbols from the interpreter's process; link_check examines the others
  foreach(kernel IN LISTS kernels)
    vllm_add_kernel(${module} "${kernel}" "${language}" ${torch} ${standard} "${definitions}")
  endforeach()

  # Folders of libtorch_cpu.so, relative to our library: lib of a conda environment, or an installed torch wheel.
  string(REGEX REPLACE "[^/]+" ".." up "${folder}")
  set_target_properties(
    ${module}
    PROPERTIES
      LINKER_LANGUAGE CXX # the same linker options on every device; our GPU code needs no device link
      DEFINE_SYMBOL "" # no code uses CMake's macro <target>_EXPORTS
      PREFIX ""
      OUTPUT_NAME "${module}"
      SUFFIX "${VLLM_EXT_SUFFIX}"
      BUILD_WITH_INSTALL_RPATH ON
      INSTALL_RPATH "$ORIGIN/${up}/../..;$ORIGIN/${up}/torch/lib"
  )
  target_link_options(${module} PRIVATE "LINKER:--version-script=${CMAKE_CURRENT_SOURCE_DIR}/cmake/exports.map" LINKER:--gc-sections)
  # If a library refers to these three symbols, as some builds of torch do, the linker defines them in our symbol table. Our bytes would then depend
  # on the installed torch. Requesting them here makes them always defined (and local, because of exports.map).
  foreach(symbol _edata __bss_start _end)
    target_link_options(${module} PRIVATE "LINKER:-u,${symbol}")
  endforeach()
  set_property(TARGET ${module} APPEND PROPERTY LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/cmake/exports.map")
  install(TARGETS ${module} LIBRARY DESTINATION "${folder}" COMPONENT "${component}")
endfunction()
