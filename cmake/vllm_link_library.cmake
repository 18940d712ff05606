# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_link_library(<target> <library>)

Compiles and links a target with a third-party library as kernels.toml names it. Unknown names are errors.

  vllm_link_library(_C.norm-cpu hwy)
    -> Highway from HIGHWAY_SRC_DIR when that is set, else from find_package(hwy)
]]
function(vllm_link_library target library)
  if(NOT library STREQUAL "hwy")
    message(FATAL_ERROR "no third-party library is called '${library}'\n  expected: hwy\n  to do: correct `libraries` in csrc/kernels.toml, or teach cmake/vllm_link_library.cmake")
  endif()

  if(NOT TARGET hwy::hwy AND NOT TARGET hwy)
    if(HIGHWAY_SRC_DIR)
      set(BUILD_SHARED_LIBS OFF)
      set(HWY_ENABLE_TESTS OFF)
      set(HWY_ENABLE_EXAMPLES OFF)
      set(HWY_ENABLE_CONTRIB OFF)  # its compiled parts (sort, thread pool); the headers we use are there without it
      set(HWY_ENABLE_INSTALL OFF)
      set(CMAKE_POSITION_INDEPENDENT_CODE ON)
      set(CMAKE_CXX_VISIBILITY_PRESET hidden)
      add_subdirectory("${HIGHWAY_SRC_DIR}" "${CMAKE_CURRENT_BINARY_DIR}/highway" EXCLUDE_FROM_ALL SYSTEM)
    else()
      find_package(hwy 1.2 CONFIG REQUIRED GLOBAL)
    endif()
  endif()
  if(TARGET hwy::hwy)
    target_link_libraries(${target} PRIVATE hwy::hwy)
  else()
    target_link_libraries(${target} PRIVATE hwy)
  endif()
endfunction()
