# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_cuda_runtime*.whl' 'include/cuda*.h'
if [ "$PKG_NAME" = cuda-driver-dev_linux-64 ]; then
    # All functions that the header declares in any of its modes, under the names that object files use.
    for mode in PLAIN CUDA_API_PER_THREAD_DEFAULT_STREAM __CUDA_API_VERSION_INTERNAL; do
        "$CC" -E -P -D$mode cuda/include/cuda.h
    done | grep -oE '\bCUresult\s+cu[A-Z]\w*\s*\(' | grep -oE 'cu[A-Z]\w*' | grep -v '^cuGetProcAddress$' | LC_ALL=C sort -u > names.txt
    echo cuGetProcAddress >> names.txt
    test "$(wc -l < names.txt)" -gt 300
    # 34 is CUDA_ERROR_STUB_LIBRARY, for programs that load this library by mistake.
    sed 's/.*/int &(void) { return 34; }/' names.txt > stub.c
    mkdir -p "$PREFIX/$target/lib/stubs"
    # rattler-build sets this default run path, which contains the build's prefix. A stub needs no library.
    unset LD_RUN_PATH
    "$CC" -std=gnu11 -O1 -fPIC -shared -nostdlib -Wl,-soname,libcuda.so.1 -Wl,--build-id=none -s stub.c -o "$PREFIX/$target/lib/stubs/libcuda.so"
else
    mkdir -p "$PREFIX/lib/stubs"
    ln -s "../../$target/lib/stubs/libcuda.so" "$PREFIX/lib/stubs/libcuda.so"
fi
