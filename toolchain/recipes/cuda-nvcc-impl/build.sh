# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

case $PKG_NAME in
    cuda-nvcc-tools)
        unpack_cuda 'nvidia_cuda_nvcc*.whl' 'bin/*'
        rm -r cuda/bin/crt cuda/bin/nvcc.profile
        install_programs bin cuda/bin/*
        # NVIDIA's own expects headers and libraries beside bin/. Ours names the same folders by their places in the prefix.
        install -m 644 "$RECIPE_DIR/nvcc.profile" "$PREFIX/bin/nvcc.profile"
        ;;
    cuda-nvcc-dev_linux-64)
        unpack_cuda 'nvidia_cuda_nvcc*.whl' 'include/fatbinary_section.h'
        mkdir -p "$PREFIX/$target/bin" "$PREFIX/$target/include"
        mv cuda/include/fatbinary_section.h "$PREFIX/$target/include/"
        # nvcc takes the link's folder for its own, and reads the profile there.
        ln -s ../../../bin/nvcc "$PREFIX/$target/bin/nvcc"
        sed -e 's#(_HERE_)/[.][.]/targets/x86_64-linux#(_HERE_)/..#' -e 's#(_HERE_)/[.][.]/nvvm#(_HERE_)/../../../nvvm#' \
            -e 's#:$(_HERE_):#:$(_HERE_)/../../../bin:#' "$RECIPE_DIR/nvcc.profile" > "$PREFIX/$target/bin/nvcc.profile"
        ;;
    *) unpack_cuda 'nvidia_cuda_nvcc*.whl' 'include/fatbinary_section.h' ;;
esac
