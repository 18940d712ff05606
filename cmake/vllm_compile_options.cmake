# SPDX-License-Identifier: Apache-2.0
include_guard()

#[[
vllm_compile_options(<target> <C++ standard>)

Sets the language level, the visibility, the device (VLLM_PLAN_DEVICE) and the flags of all our units. Nothing here depends on the machine, the
number of jobs or a temporary folder, so the same source has the same command line and a compiler cache hits.

  vllm_compile_options(_C 17)
    -> C++   -DVLLM_DEVICE_CPU -std=c++17 -fPIC -fvisibility=hidden ... -Wall -Wextra ...
    -> HIP   -DVLLM_DEVICE_ROCM -std=c++17 -mcode-object-version=5 --offload-compress ... -Wall -Wextra ...
    -> CUDA  -DVLLM_DEVICE_CUDA -std=c++17 --objdir-as-tempdir --fmad=false -Xcompiler=-Wall ...
]]
function(vllm_compile_options target standard)
  set_target_properties(
    ${target}
    PROPERTIES
      CXX_STANDARD ${standard}
      CXX_STANDARD_REQUIRED ON
      CXX_EXTENSIONS OFF
      CUDA_STANDARD ${standard}
      CUDA_STANDARD_REQUIRED ON
      CUDA_EXTENSIONS OFF
      HIP_STANDARD ${standard}
      HIP_STANDARD_REQUIRED ON
      HIP_EXTENSIONS OFF
      CUDA_ARCHITECTURES OFF
      HIP_ARCHITECTURES OFF # each kernel of the plan has its own
      HIP_RUNTIME_LIBRARY None # core/gpu/hip calls the runtime that torch has loaded, so no library needs libamdhip64
      CUDA_RUNTIME_LIBRARY Static # works with any other CUDA runtime of its major version in the process, and without one
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
    -Wno-psabi # GCC's note that it passes wide vectors differently since GCC 4.6; no function between libraries has such arguments
    -fno-math-errno # sqrt becomes an instruction; no code reads errno
    -ffp-contract=off # round products before additions on every instruction set, unless the code calls MulAdd
    -ffunction-sections
    -fdata-sections
  )
  if(VLLM_WERROR)
    list(APPEND host -Werror)
  endif()
  # Paths in messages and debug information are relative, so the location of the tree does not affect the binary.
  list(APPEND host "-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/=" "-ffile-prefix-map=${CMAKE_CURRENT_BINARY_DIR}=build")
  foreach(folder IN LISTS VLLM_TORCH_INCLUDE_DIRS)
    list(APPEND host "-ffile-prefix-map=${folder}/=")
  endforeach()
  foreach(option IN LISTS host)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX,HIP>:${option}>)
  endforeach()

  # clang for AMD GPUs. Code objects of version 5 load in ROCm 5.7 and newer; clang 22 writes version 6 by default.
  foreach(option -mcode-object-version=5 --offload-compress)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:HIP>:${option}>)
  endforeach()

  # nvcc passes generated code to the host compiler, and that code shadows names, converts implicitly and tests undefined macros.
  list(REMOVE_ITEM host -Wshadow -Wconversion -Wno-sign-conversion -Wundef)
  list(TRANSFORM host PREPEND -Xcompiler=)
  list(
    APPEND host
    # The same as -ffp-contract=off: only fmaf fuses a product and a sum. VLLM_FAST_MATH marks libraries with other rules.
    $<$<NOT:$<BOOL:$<TARGET_PROPERTY:VLLM_FAST_MATH>>>:--fmad=false>
    -Xfatbin=-compress-all # most of a library is code for several architectures; each process unpacks it once
    --objdir-as-tempdir # name intermediate files after the object: a random name would end up in the object
    $<$<BOOL:${VLLM_WERROR}>:-Werror=all-warnings>
  )
  foreach(option IN LISTS host)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${option}>)
  endforeach()
endfunction()
