# SPDX-License-Identifier: Apache-2.0
# Sets the variables that conda-forge's activation of nvcc sets: nvcc uses the channel's host compiler and, while a package is being built,
# also finds the toolkit's headers and libraries in the host prefix. Works in every POSIX shell and under `set -eu`.
if [ -z "${CXX:-}" ]; then
    echo "cuda-nvcc: no host compiler is active (CXX is not set); add gcc_linux-64 and gxx_linux-64 to the environment" >&2
else
    # Package tests set CONDA_BUILD too, but have only one prefix.
    _cuda_building=0
    if [ "${CONDA_BUILD:-0}" = 1 ] && [ -n "${BUILD_PREFIX:-}" ] && [ -n "${PREFIX:-}" ] && [ -n "${SRC_DIR:-}" ]; then _cuda_building=1; fi
    _cuda_target=targets/x86_64-linux
    for _cuda_name in CFLAGS CPPFLAGS CXXFLAGS LDFLAGS CMAKE_ARGS NVCC_PREPEND_FLAGS NVCC_APPEND_FLAGS CUDAARCHS; do
        eval "_cuda_value=\${$_cuda_name+set}"
        if [ "$_cuda_value" = set ]; then eval "export CONDA_BACKUP_CUDA_$_cuda_name=\"\$$_cuda_name\""; else unset "CONDA_BACKUP_CUDA_$_cuda_name"; fi
    done
    if [ "$_cuda_building" = 1 ]; then
        _cuda_include="-I${PREFIX}/${_cuda_target}/include -I${BUILD_PREFIX}/${_cuda_target}/include"
        _cuda_lib="-L${PREFIX}/${_cuda_target}/lib -L${PREFIX}/${_cuda_target}/lib/stubs -L${BUILD_PREFIX}/${_cuda_target}/lib -L${BUILD_PREFIX}/${_cuda_target}/lib/stubs"
        # CMake uses the last definition of a variable, so this one repeats the folders from the C compiler's activation.
        export CMAKE_ARGS="${CMAKE_ARGS:-} -DCMAKE_FIND_ROOT_PATH=${PREFIX};${BUILD_PREFIX}/x86_64-conda-linux-gnu/sysroot;${PREFIX}/${_cuda_target};${BUILD_PREFIX}/${_cuda_target}"
        # At the end of the command line, like the compiler's own folders, so that folders that a user names come first.
        export NVCC_APPEND_FLAGS="${NVCC_APPEND_FLAGS:-} -I${PREFIX}/${_cuda_target}/include -L${PREFIX}/${_cuda_target}/lib -L${PREFIX}/${_cuda_target}/lib/stubs"
        export CUDAARCHS="${CUDAARCHS:-@cudaarchs@}"
    else
        _cuda_include="-I${CONDA_PREFIX}/${_cuda_target}/include"
        _cuda_lib="-L${CONDA_PREFIX}/${_cuda_target}/lib -L${CONDA_PREFIX}/${_cuda_target}/lib/stubs"
    fi
    export CFLAGS="${CFLAGS:-} ${_cuda_include}"
    export CPPFLAGS="${CPPFLAGS:-} ${_cuda_include}"
    export CXXFLAGS="${CXXFLAGS:-} ${_cuda_include}"
    export LDFLAGS="${LDFLAGS:-} ${_cuda_lib}"
    export NVCC_PREPEND_FLAGS="${NVCC_PREPEND_FLAGS:-} -ccbin=${CXX}"
    export CONDA_BACKUP_CUDA=1
    unset _cuda_building _cuda_target _cuda_name _cuda_value _cuda_include _cuda_lib
fi
