# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_cuda_*.whl' 'include/crt/host_config.h'
if [ "$PKG_NAME" = cuda-nvcc_linux-64 ]; then
    # conda runs activation scripts in alphabetical order and deactivation scripts in reverse order. With the tilde these run after the
    # host compiler's scripts, to whose variables they add, and before them at deactivation.
    for way in activate deactivate; do
        mkdir -p "$PREFIX/etc/conda/$way.d"
        sed "s/@cudaarchs@/$DEFAULT_CUDAARCHS/" "$RECIPE_DIR/$way.sh" > "$PREFIX/etc/conda/$way.d/~cuda-nvcc_$way.sh"
    done
fi
