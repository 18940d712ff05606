# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

case $CUDA_RELEASE in
    12.*)
        unpack_cuda 'nvidia_cuda_nvcc*.whl' 'include/crt/*'
        if [ "$PKG_NAME" = cuda-crt-tools ]; then unpack_cuda_deb; fi
        ;;
    *)
        unpack_cuda 'nvidia_cuda_crt*.whl' 'include/crt/*'
        if [ "$PKG_NAME" = cuda-crt-tools ]; then unpack_cuda 'nvidia_cuda_nvcc*.whl' 'bin/crt/*'; fi
        ;;
esac
case $PKG_NAME in
    cuda-crt-dev_linux-64)
        find cuda -name '__init__.py' -delete
        mkdir -p "$PREFIX/$target/include"
        mv cuda/include/crt "$PREFIX/$target/include/"
        ;;
    cuda-crt-tools)
        mkdir -p "$PREFIX/bin"
        mv cuda/bin/crt "$PREFIX/bin/"
        ;;
esac
