# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

libraries=$PREFIX/$target/lib
case $PKG_NAME in
    cuda-nvrtc)
        # The alternative libraries contain the same compiler, built for profiling, and are left out.
        unpack_cuda 'nvidia_cuda_nvrtc*.whl' 'lib/libnvrtc.so.*' 'lib/libnvrtc-builtins.so.*'
        mkdir -p "$libraries"
        for file in cuda/lib/*.so.*; do
            install -m 755 "$file" "$libraries/"
            # The compiler loads the library of its built-in functions by name, and needs libstdc++.
            patchelf --force-rpath --set-rpath '$ORIGIN:$ORIGIN/../../../lib' "$libraries/$(basename "$file")"
            link_in_lib "$(basename "$file")"
        done
        ;;
    cuda-nvrtc-dev)
        unpack_cuda 'nvidia_cuda_nvrtc*.whl' 'include/nvrtc.h'
        mkdir -p "$PREFIX/$target/include"
        mv cuda/include/nvrtc.h "$PREFIX/$target/include/"
        name=$(cd "$libraries" && echo libnvrtc.so.*)
        ln -s "$name" "$libraries/libnvrtc.so"
        link_in_lib libnvrtc.so
        ;;
esac
