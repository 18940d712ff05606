# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

# NVIDIA's profile expects headers and libraries next to bin/. Ours has their paths in the prefix.
cp "$RECIPE_DIR/nvcc.profile" nvcc.profile
case $CUDA_RELEASE in
    # CCCL has a separate folder since CUDA 13.
    12.*) sed -i '/^SYSTEM_INCLUDES/d' nvcc.profile ;;
esac

case $PKG_NAME in
    cuda-nvcc-tools)
        case $CUDA_RELEASE in
            12.*) unpack_cuda_deb ;;
            *) unpack_cuda 'nvidia_cuda_nvcc*.whl' 'bin/*' ;;
        esac
        rm -rf cuda/bin/crt cuda/bin/nvcc.profile
        install_programs bin cuda/bin/*
        install -m 644 nvcc.profile "$PREFIX/bin/nvcc.profile"
        ;;
    cuda-nvcc-dev_linux-64)
        unpack_cuda 'nvidia_cuda_nvcc*.whl' 'include/fatbinary_section.h'
        mkdir -p "$PREFIX/$target/bin" "$PREFIX/$target/include"
        mv cuda/include/fatbinary_section.h "$PREFIX/$target/include/"
        # nvcc reads the profile in the folder of the link through which it is called.
        ln -s ../../../bin/nvcc "$PREFIX/$target/bin/nvcc"
        sed -e 's#(_HERE_)/[.][.]/targets/x86_64-linux#(_HERE_)/..#' -e 's#(_HERE_)/[.][.]/nvvm#(_HERE_)/../../../nvvm#' \
            -e 's#:$(_HERE_):#:$(_HERE_)/../../../bin:#' nvcc.profile > "$PREFIX/$target/bin/nvcc.profile"
        ;;
    *) unpack_cuda 'nvidia_cuda_nvcc*.whl' 'include/fatbinary_section.h' ;;
esac
