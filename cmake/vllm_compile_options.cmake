# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_compile_options(<target>)

Language level, visibility, the device (VLLM_PLAN_DEVICE) and flags that all our units share. Nothing here depends on the machine, the number of jobs or a temporary
folder: the same source gives the same command line, and a compiler cache hits.

  vllm_compile_options(_C)
    -> C++   -DVLLM_DEVICE_CPU -std=c++17 -fPIC -fvisibility=hidden ... -Wall -Wextra ...
    -> CUDA  -DVLLM_DEVICE_CUDA -std=c++17 --objdir-as-tempdir --fmad=false -Xcompiler=-Wall ...
]]
function(vllm_compile_options target)
  set_target_properties(
    ${target}
    PROPERTIES
      CXX_STANDARD 17
      CXX_STANDARD_REQUIRED ON
      CXX_EXTENSIONS OFF
      CUDA_STANDARD 17
      CUDA_STANDARD_REQUIRED ON
      CUDA_EXTENSIONS OFF
      HIP_STANDARD 17
      HIP_STANDARD_REQUIRED ON
      HIP_EXTENSIONS OFF
      CUDA_ARCHITECTURES OFF
      HIP_ARCHITECTURES OFF # the plan's, kernel by kernel
      CUDA_RUNTIME_LIBRARY Static # loads beside any other CUDA runtime of its major version, and without one
      POSITION_INDEPENDENT_CODE ON
      CXX_VISIBILITY_PRESET hidden
      CUDA_VISIBILITY_PRESET hidden
      HIP_VISIBILITY_PRESET hidden
      VISIBILITY_INLINES_HIDDEN ON
  )
  target_include_directories(${target} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc")
  if(VLLM_PLAN_DEVICE)
    string(TOUPPER "VLLM_DEVICE_${VLLM_PLAN_DEVICE}" definition)
    target_compile_definitions(${target} PRIVATE ${definition})
  endif()
  set(
    host
    -Wall
    -Wextra
    -Wshadow
    -Wconversion
    -Wno-sign-conversion
    -Wundef
    -Wno-psabi # GCC's note that passing wide vectors changed with GCC 4.6: they never cross a library's border here
    -fno-math-errno # sqrt is an instruction; nobody asks for errno
    -ffp-contract=off # a product is rounded before it is added, on every instruction set, unless the code says MulAdd
    -ffunction-sections
    -fdata-sections
  )
  if(VLLM_WERROR)
    list(APPEND host -Werror)
  endif()
  # Paths in messages and debug information are relative: where the tree lies does not shape the binary.
  list(APPEND host "-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/=" "-ffile-prefix-map=${CMAKE_CURRENT_BINARY_DIR}=build")
  foreach(folder IN LISTS VLLM_TORCH_INCLUDE_DIRS)
    list(APPEND host "-ffile-prefix-map=${folder}/=")
  endforeach()
  foreach(option IN LISTS host)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX,HIP>:${option}>)
  endforeach()

  # What nvcc hands to the host compiler holds code that it generated; that code shadows, converts and tests undefined macros.
  list(REMOVE_ITEM host -Wshadow -Wconversion -Wno-sign-conversion -Wundef)
  list(TRANSFORM host PREPEND -Xcompiler=)
  list(
    APPEND host
    # As -ffp-contract=off: products and sums are joined where the code says fmaf. Not where a library's rules are others: VLLM_FAST_MATH.
    $<$<NOT:$<BOOL:$<TARGET_PROPERTY:VLLM_FAST_MATH>>>:--fmad=false>
    -Xfatbin=-compress-all # code for each architecture is most of a library, and is unpacked once a process
    --objdir-as-tempdir # intermediate files get the object's name, not a random one that would end up in the object
    $<$<BOOL:${VLLM_WERROR}>:-Werror=all-warnings>
  )
  foreach(option IN LISTS host)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${option}>)
  endforeach()
endfunction()
