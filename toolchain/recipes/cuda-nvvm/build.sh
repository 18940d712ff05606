# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

case $PKG_NAME in
    cuda-nvvm-tools)
        unpack_cuda 'nvidia_nvvm*.whl' 'nvvm/bin/cicc' 'nvvm/libdevice/*'
        # Needs nothing but libc, so there is nothing to look for.
        mkdir -p "$PREFIX/nvvm/bin"
        install -m 755 cuda/nvvm/bin/cicc "$PREFIX/nvvm/bin/cicc"
        mv cuda/nvvm/libdevice "$PREFIX/nvvm/"
        ;;
    cuda-nvvm-impl)
        unpack_cuda 'nvidia_nvvm*.whl' 'lib/libnvvm.so.*' 'include/nvvm.h'
        mkdir -p "$PREFIX/nvvm/lib64" "$PREFIX/nvvm/include"
        install -m 755 cuda/lib/libnvvm.so.4 "$PREFIX/nvvm/lib64/libnvvm.so.4"
        ln -s libnvvm.so.4 "$PREFIX/nvvm/lib64/libnvvm.so"
        mv cuda/include/nvvm.h "$PREFIX/nvvm/include/"
        ;;
    *)
        unpack_cuda 'nvidia_nvvm*.whl' 'include/nvvm.h'
        if [ "$PKG_NAME" = cuda-nvvm-dev_linux-64 ]; then
            mkdir -p "$PREFIX/$target"
            ln -s ../../nvvm "$PREFIX/$target/nvvm"
        fi
        ;;
esac
