# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_cuda_runtime*.whl' 'include/*' 'lib/*.so.*'
find cuda -name '__init__.py' -delete
libraries=$PREFIX/$target/lib
name=$(basename cuda/lib/libcudart.so.*)
mkdir -p "$libraries"

case $PKG_NAME in
    cuda-cudart_linux-64)
        # NVIDIA's archives also name it by the full version. Programs use the link.
        install -m 755 "cuda/lib/$name" "$libraries/libcudart.so.$PKG_VERSION"
        ln -s "libcudart.so.$PKG_VERSION" "$libraries/$name"
        ;;
    cuda-cudart) link_in_lib "$name" "libcudart.so.$PKG_VERSION" ;;
    cuda-cudart-dev_linux-64)
        mv cuda/include "$PREFIX/$target/include"
        ln -s "$name" "$libraries/libcudart.so"
        ;;
    cuda-cudart-dev) link_in_lib libcudart.so ;;
esac
