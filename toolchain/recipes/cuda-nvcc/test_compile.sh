# SPDX-License-Identifier: Apache-2.0
# Compiles and links with the compiler of the activated environment, and checks the results.
set -euo pipefail

case $(command -v nvcc) in "$PREFIX/bin/nvcc") ;; *) echo "nvcc is $(command -v nvcc)"; exit 1 ;; esac
nvcc --version | grep "release $CUDA_RELEASE," > /dev/null

# Code for exactly the requested architecture, compressed, with the shared runtime library. The host compiler links: nvcc before 13 would add
# an empty code object for the plain architecture.
nvcc -O2 -std=c++17 -gencode arch=compute_90a,code=sm_90a -Xfatbin -compress-all -Xcompiler -fPIC -c test_kernel.cu -o kernel.o
"$CXX" -shared kernel.o -o libkernel.so $LDFLAGS -lcudart
nvcc -gencode arch=compute_90a,code=sm_90a -cudart shared -shared kernel.o -o by_nvcc.so 2> said.txt
test ! -s said.txt
cuobjdump --list-elf libkernel.so | sed -n 's/.*\(sm_[0-9]*[af]*\)[.]cubin$/\1/p' | sort -u > found.txt
echo sm_90a | diff - found.txt
test -z "$(cuobjdump --list-ptx libkernel.so 2>/dev/null | grep -E 'compute_|sm_' || true)"
cuobjdump --dump-elf-symbols libkernel.so | grep 'scale' > /dev/null
"$READELF" -d libkernel.so | grep "NEEDED.*\[libcudart.so.${CUDA_RELEASE%%.*}\]" > /dev/null

# The host program, compiled without nvcc.
"$CXX" test_main.cc -o program $CXXFLAGS $LDFLAGS -L. -lkernel -lcudart -Wl,-rpath,"$PWD" -Wl,-rpath,"$PREFIX/lib"
env -i ./program

# Several architectures and PTX. The plain instruction set must not accept instructions that only 9.0a has.
nvcc -std=c++17 -gencode arch=compute_80,code=sm_80 -gencode "arch=compute_90,code=[sm_90,compute_90]" -cubin -o /dev/null test_kernel.cu 2> /dev/null && exit 1
nvcc -std=c++17 -gencode arch=compute_80,code=sm_80 -gencode "arch=compute_90,code=[sm_90,compute_90]" -c test_kernel.cu -o several.o
cuobjdump --list-elf several.o | sed -n 's/.*\(sm_[0-9]*[af]*\)[.]cubin$/\1/p' | sort -u | tr '\n' ' ' | grep -x 'sm_80 sm_90 ' > /dev/null
cuobjdump --list-ptx several.o | grep sm_90 > /dev/null

# All headers and programs are the environment's.
nvcc -std=c++17 -M test_kernel.cu | tr ' \\' '\n\n' | grep '^/' > opened.txt
test "$(wc -l < opened.txt)" -gt 100
while read -r file; do
    case $(realpath "$file") in "$(realpath "$PREFIX")"/*) ;; *) echo "$file is the host's"; exit 1 ;; esac
done < opened.txt
nvcc --dryrun -std=c++17 -c test_kernel.cu -o x.o 2>&1 | grep "$CXX" > /dev/null
# Called through the link in the target's folder, like build systems that look for a toolkit's root.
"$PREFIX/targets/x86_64-linux/bin/nvcc" -std=c++17 -arch=sm_90a -c test_kernel.cu -o linked.o

# With CMake: the language, the runtime and the driver library.
cat > CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.26)
project(kernel LANGUAGES CXX CUDA)
find_package(CUDAToolkit REQUIRED)
add_library(kernel SHARED test_kernel.cu)
target_link_libraries(kernel PRIVATE CUDA::cudart_static CUDA::cuda_driver)
message(STATUS "toolkit ${CUDAToolkit_VERSION} in ${CUDAToolkit_TARGET_DIR}")
END
cmake -G Ninja -B build -DCMAKE_CUDA_ARCHITECTURES=90a-real . > configured.txt
grep -q "toolkit $CUDA_RELEASE" configured.txt
cmake --build build > built.txt
cuobjdump --list-elf build/libkernel.so | grep sm_90a > /dev/null
if "$READELF" -d build/libkernel.so | grep libcudart; then exit 1; fi

# Deactivation restores the previous values.
before=${CXXFLAGS}
NVCC_PREPEND_FLAGS=mine
set +u
. "$PREFIX/etc/conda/deactivate.d/~cuda-nvcc_deactivate.sh"
CXXFLAGS=first NVCC_PREPEND_FLAGS=mine
unset NVCC_APPEND_FLAGS
. "$PREFIX/etc/conda/activate.d/~cuda-nvcc_activate.sh"
test "$NVCC_PREPEND_FLAGS" = "mine -ccbin=$CXX"
test "$CXXFLAGS" != first
. "$PREFIX/etc/conda/deactivate.d/~cuda-nvcc_deactivate.sh"
test "$NVCC_PREPEND_FLAGS $CXXFLAGS" = 'mine first'
test -z "${NVCC_APPEND_FLAGS+set}${CONDA_BACKUP_CUDA+set}"
test -n "$before"
