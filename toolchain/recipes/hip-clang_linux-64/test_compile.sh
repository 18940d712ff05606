# SPDX-License-Identifier: Apache-2.0
# Compiles for every default architecture and looks at what came out, with the activated compiler.
set -euo pipefail

case $HIPCXX in "$PREFIX"/bin/*) ;; *) echo "HIPCXX is $HIPCXX"; exit 1 ;; esac
test "$ROCM_PATH" = "$PREFIX"
architectures='gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1201'
flags=$(printf ' --offload-arch=%s' $architectures)
"$HIPCXX" -x hip -O2 -std=c++17 -fPIC $flags -mcode-object-version=5 --offload-compress -c test_kernel.hip -o kernel.o

# The container in the object: exactly these architectures, each a loadable code object with its wave size.
llvm-objcopy --dump-section .hip_fatbin=bundle kernel.o
clang-offload-bundler --type=o --input=bundle --list | sed -n 's/^hipv4-amdgcn-amd-amdhsa--//p' | sort > found.txt
printf '%s\n' $architectures | sort | diff - found.txt
for arch in gfx90a gfx1201; do
    clang-offload-bundler --type=o --unbundle --input=bundle --output=$arch.elf --targets=hipv4-amdgcn-amd-amdhsa--$arch
    llvm-readelf --notes $arch.elf > notes.txt
    case $arch in gfx9*) size=64 ;; *) size=32 ;; esac
    grep -E "\.wavefront_size: +$size" notes.txt > /dev/null
    llvm-objdump -d $arch.elf | grep s_endpgm > /dev/null
done

# Headers and bitcode are the prefix's: nothing of the machine's is opened.
"$HIPCXX" -x hip -std=c++17 --offload-arch=gfx942 -M test_kernel.hip | tr ' \\' '\n\n' | grep '^/' > opened.txt
test "$(wc -l < opened.txt)" -gt 100
while read -r file; do
    case $(realpath "$file") in "$(realpath "$PREFIX")"/*) ;; *) echo "$file is the host's"; exit 1 ;; esac
done < opened.txt

# CMake's own way. Without -no-hip-rt clang links every HIP program with libamdhip64, which this channel does not have.
cat > CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.26)
project(kernel LANGUAGES CXX HIP)
add_library(kernel OBJECT test_kernel.hip)
END
cmake -G Ninja -B build -DCMAKE_HIP_FLAGS=-no-hip-rt -DCMAKE_HIP_ARCHITECTURES='gfx942;gfx1100' . > configured.txt
cmake --build build > built.txt
test -f build/CMakeFiles/kernel.dir/test_kernel.hip.o

# Leaving the environment gives back what was there before.
set +u
. "$PREFIX/etc/conda/deactivate.d/deactivate-hip-clang_linux-64.sh"
test -z "${HIPCXX+set}${ROCM_PATH+set}"
