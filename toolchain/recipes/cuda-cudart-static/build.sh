# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_cuda_runtime*.whl' 'lib/*.a'
case $CUDA_RELEASE in
    12.*)
        # The library holds GPU code, which the nvlink of an older release cannot read. nvcc links it into every program, so it is replaced
        # by an empty one. The only loss is that kernels cannot launch kernels.
        rm cuda/lib/libcudadevrt.a
        "$CC" -x c -c /dev/null -o none.o
        "$AR" rcD cuda/lib/libcudadevrt.a none.o
        ;;
esac
if [ "$PKG_NAME" = cuda-cudart-static_linux-64 ]; then
    mkdir -p "$PREFIX/$target/lib"
    install -m 644 cuda/lib/*.a "$PREFIX/$target/lib/"
else
    (cd cuda/lib && link_in_lib *.a)
fi
