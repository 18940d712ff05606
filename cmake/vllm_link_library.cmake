# SPDX-License-Identifier: Apache-2.0
include_guard()
include(vllm_link_cutlass)
include(vllm_link_engine)
include(vllm_link_flash_attention)

#[[
vllm_link_library(<target> <library> <extension target>)

Compiles and links a target with a library under its name in kernels.toml. An unknown name is an error.

  vllm_link_library(_C.norm-cpu hwy _C)
    -> Highway from HIGHWAY_SRC_DIR if that is set, else from find_package(hwy)
  vllm_link_library(cumem_allocator.cumem-cuda dl cumem_allocator)
    -> the library with dlopen(): -ldl before glibc 2.34, and none since then
  vllm_link_library(_C.scaled-mm-int8-sm80 cutlass _C)
    -> CUTLASS's headers; --expt-relaxed-constexpr
  vllm_link_library(_vllm_fa2_C.fa2-hdim64 flash-attention _vllm_fa2_C)
    -> -isystem csrc/attention/flash_shims, FlashAttention's kernels and CUTLASS; --expt-relaxed-constexpr --expt-extended-lambda
  vllm_link_library(_vllm_fa3_C.fa3-hdim64 flash-attention-3 _vllm_fa3_C)
    -> the same, with the kernels of version 3
  vllm_link_library(_C_stable_libtorch.engine engine _C_stable_libtorch)
    -> the engine's headers and CUTLASS's, and upstream's options
]]
function(vllm_link_library target library extension)
  if(library STREQUAL "dl")
    target_link_libraries(${target} PRIVATE ${CMAKE_DL_LIBS})
    return()
  elseif(library STREQUAL "cutlass")
    vllm_link_cutlass(${target})
    return()
  elseif(library STREQUAL "flash-attention")
    vllm_link_flash_attention(${target} 2)
    return()
  elseif(library STREQUAL "flash-attention-3")
    vllm_link_flash_attention(${target} 3)
    return()
  elseif(library STREQUAL "engine")
    vllm_link_engine(${target} ${extension})
    return()
  elseif(library STREQUAL "cutlass-examples")
    target_include_directories(${target} SYSTEM PRIVATE "${CUTLASS_EXAMPLES_DIR}/77_blackwell_fmha" "${CUTLASS_EXAMPLES_DIR}/common")
    return()
  elseif(NOT library STREQUAL "hwy")
    message(
      FATAL_ERROR
      "no library is called '${library}'\n  expected: hwy, dl, cutlass, cutlass-examples, engine, flash-attention, flash-attention-3\n  to do: correct `libraries` in csrc/kernels.toml, or add the library to cmake/vllm_link_library.cmake"
    )
  endif()

  if(NOT TARGET hwy::hwy AND NOT TARGET hwy)
    if(HIGHWAY_SRC_DIR)
      if(NOT EXISTS "${HIGHWAY_SRC_DIR}/CMakeLists.txt")
        message(FATAL_ERROR "HIGHWAY_SRC_DIR: ${HIGHWAY_SRC_DIR} contains no CMakeLists.txt\n  expected: the folder of Highway's sources")
      endif()
      set(CMAKE_POLICY_DEFAULT_CMP0077 NEW) # Highway's option() and
      set(CMAKE_POLICY_DEFAULT_CMP0126 NEW) # set(CACHE) respect the variables below
      set(BUILD_SHARED_LIBS OFF)
      set(HWY_ENABLE_TESTS OFF)
      set(HWY_ENABLE_EXAMPLES OFF)
      set(HWY_ENABLE_CONTRIB OFF) # compiled parts that we do not use (sorting, thread pool)
      set(HWY_ENABLE_INSTALL OFF)
      set(CMAKE_POSITION_INDEPENDENT_CODE ON)
      set(CMAKE_WARN_DEPRECATED OFF)
      add_subdirectory("${HIGHWAY_SRC_DIR}" "${CMAKE_CURRENT_BINARY_DIR}/highway" EXCLUDE_FROM_ALL SYSTEM)
    else()
      find_package(hwy 1.2 CONFIG QUIET GLOBAL)
      if(NOT hwy_FOUND)
        message(
          FATAL_ERROR
          "Highway >= 1.2 was not found\n  expected: hwy-config.cmake below a folder of CMAKE_PREFIX_PATH\n"
          "  to do: run `make fetch` (in .venv: `vllm-build fetch highway`), which downloads the locked sources into the cache; or install libhwy (conda); or set HIGHWAY_SRC_DIR to a folder of Highway's sources (-DHIGHWAY_SRC_DIR=… without setup.py)"
        )
      endif()
    endif()
  endif()
  if(TARGET hwy::hwy)
    target_link_libraries(${target} PRIVATE hwy::hwy)
  else()
    target_link_libraries(${target} PRIVATE hwy)
  endif()
endfunction()
