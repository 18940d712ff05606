# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_cuda_crt*.whl' 'include/crt/*'
case $PKG_NAME in
    cuda-crt-dev_linux-64)
        mkdir -p "$PREFIX/$target/include"
        mv cuda/include/crt "$PREFIX/$target/include/"
        ;;
    cuda-crt-tools)
        unpack_cuda 'nvidia_cuda_nvcc*.whl' 'bin/crt/*'
        mkdir -p "$PREFIX/bin"
        mv cuda/bin/crt "$PREFIX/bin/"
        ;;
esac
