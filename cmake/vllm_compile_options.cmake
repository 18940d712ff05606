# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_compile_options(<target>)

Language level, visibility and flags that all our units share. Nothing here depends on the machine, the number of jobs or a temporary
folder: the same source gives the same command line, and a compiler cache hits.

  vllm_compile_options(_C)
    -> -std=c++17 -fPIC -fvisibility=hidden ... -Wall -Wextra ...
]]
function(vllm_compile_options target)
  set_target_properties(${target} PROPERTIES
    CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
    POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_include_directories(${target} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc")
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wundef
    -Wno-psabi                   # GCC's note that passing wide vectors changed with GCC 4.6: they never cross a library's border here
    -fno-math-errno              # sqrt is an instruction; nobody asks for errno
    -ffunction-sections -fdata-sections
    $<$<BOOL:${VLLM_WERROR}>:-Werror>
    # Paths in messages and debug information are relative: where the tree lies does not shape the binary.
    "-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/="
    "-ffile-prefix-map=${CMAKE_CURRENT_BINARY_DIR}=build")
  foreach(folder IN LISTS VLLM_TORCH_INCLUDE_DIRS)
    target_compile_options(${target} PRIVATE "-ffile-prefix-map=${folder}/=")
  endforeach()
endfunction()
