# SPDX-License-Identifier: Apache-2.0
#[[
vllm_find_inputs()

Ensures that every input variable of CMakeLists.txt has a value. Values from the caller stay (vllm_build passes all of them). If VLLM_DEVICE is
set, cmake/find_inputs.py finds the missing ones with the Python on PATH. It needs only this source tree and an installed torch.

  cmake --preset cpu                        (VLLM_DEVICE=cpu, nothing else)
    -> VLLM_PLAN                            <build folder>/plan.json, written now
    -> VLLM_TORCH_INCLUDE_DIRS              .../site-packages/torch/include
    -> VLLM_TORCH_CPU_LIBRARY               .../site-packages/torch/lib/libtorch_cpu.so
    -> VLLM_PYTHON_INCLUDE_DIR              .../include/python3.11
    -> VLLM_HEAVY_JOBS                      number of heavy units that fit into memory now
    -> CMAKE_CUDA_COMPILER                  for CUDA, the nvcc that the plan was made for
    -> FLASH_ATTENTION_SRC_DIR, CUTLASS_INCLUDE_DIR, ENGINE_KERNELS_SRC_DIR, ...   sources that the plan needs
]]
function(vllm_find_inputs)
  set(names VLLM_PLAN VLLM_TORCH_INCLUDE_DIRS VLLM_TORCH_CPU_LIBRARY VLLM_PYTHON_INCLUDE_DIR)
  set(missing ${names})
  foreach(name IN LISTS names)
    if(${name})
      list(REMOVE_ITEM missing ${name})
    endif()
  endforeach()

  if(VLLM_DEVICE)
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    execute_process(
      COMMAND
        "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/cmake/find_inputs.py" "${VLLM_DEVICE}" "${CMAKE_CURRENT_BINARY_DIR}/plan.json"
      OUTPUT_VARIABLE found
      ERROR_VARIABLE why
      RESULT_VARIABLE status
    )
    if(NOT status EQUAL 0)
      message(FATAL_ERROR "${why}")
    endif()
    foreach(
      name
      IN
      LISTS missing
      ITEMS
        VLLM_HEAVY_JOBS
        CMAKE_CUDA_COMPILER
        FLASH_ATTENTION_SRC_DIR
        CUTLASS_INCLUDE_DIR
        ENGINE_KERNELS_SRC_DIR
        ENGINE_CUTLASS_DIR
        CUTLASS_EXAMPLES_DIR
    )
      string(JSON value ERROR_VARIABLE absent GET "${found}" ${name})
      # Values from the caller are in the cache already and stay.
      if(NOT absent)
        set(${name} "${value}" CACHE STRING "found by cmake/find_inputs.py")
      endif()
    endforeach()
    # The plan depends on the table.
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels.toml")
  elseif(missing)
    message(
      FATAL_ERROR
      "${missing} not set, and no VLLM_DEVICE to find them for\n  to do: use a preset (cmake --list-presets) or pass -DVLLM_DEVICE=cpu"
    )
  endif()

  foreach(name IN LISTS names)
    foreach(path IN LISTS ${name})
      if(NOT EXISTS "${path}")
        message(FATAL_ERROR "${name}: ${path} does not exist")
      endif()
    endforeach()
  endforeach()
endfunction()
