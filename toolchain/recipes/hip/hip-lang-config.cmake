# SPDX-License-Identifier: Apache-2.0
# What CMake's HIP language asks of a ROCm installation: the target that HIP sources are compiled and
# linked with. ROCm's own file names libamdhip64.so as well; this package has no such library, and a
# program that needs one links it by name.
get_filename_component(_hip_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET hip-lang::device)
  add_library(hip-lang::device INTERFACE IMPORTED)
  set_target_properties(
    hip-lang::device
    PROPERTIES
      INTERFACE_COMPILE_DEFINITIONS "$<$<COMPILE_LANGUAGE:HIP>:__HIP_ROCclr__=1>"
      INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "$<$<COMPILE_LANGUAGE:HIP>:${_hip_root}/include>"
      INTERFACE_INCLUDE_DIRECTORIES "$<$<COMPILE_LANGUAGE:HIP>:${_hip_root}/include>"
  )
endif()
set(_CMAKE_HIP_DEVICE_RUNTIME_TARGET "hip-lang::device")
unset(_hip_root)
