# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

case $CUDA_RELEASE in
    12.*)
        unpack_cuda 'nvidia_cuda_nvcc*.whl' 'nvvm/lib64/libnvvm.so*' 'nvvm/include/nvvm.h'
        if [ "$PKG_NAME" = cuda-nvvm-tools ]; then unpack_cuda_deb; fi
        library=cuda/nvvm/lib64/libnvvm.so header=cuda/nvvm/include/nvvm.h
        ;;
    *)
        unpack_cuda 'nvidia_nvvm*.whl' 'nvvm/*' 'lib/libnvvm.so.*' 'include/nvvm.h'
        library=cuda/lib/libnvvm.so.4 header=cuda/include/nvvm.h
        ;;
esac
case $PKG_NAME in
    cuda-nvvm-tools)
        # It needs no library except libc, so it needs no RPATH.
        mkdir -p "$PREFIX/nvvm/bin"
        install -m 755 cuda/nvvm/bin/cicc "$PREFIX/nvvm/bin/cicc"
        mv cuda/nvvm/libdevice "$PREFIX/nvvm/"
        ;;
    cuda-nvvm-impl)
        mkdir -p "$PREFIX/nvvm/lib64" "$PREFIX/nvvm/include"
        install -m 755 "$library" "$PREFIX/nvvm/lib64/libnvvm.so.4"
        ln -s libnvvm.so.4 "$PREFIX/nvvm/lib64/libnvvm.so"
        mv "$header" "$PREFIX/nvvm/include/"
        ;;
    cuda-nvvm-dev_linux-64)
        mkdir -p "$PREFIX/$target"
        ln -s ../../nvvm "$PREFIX/$target/nvvm"
        ;;
esac
