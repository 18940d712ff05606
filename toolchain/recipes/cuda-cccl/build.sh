# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_cuda_cccl*.whl' 'include/*' 'lib/cmake/*'
if [ "$PKG_NAME" = cuda-cccl_linux-64 ]; then
    find cuda -name '__init__.py' -delete
    mkdir -p "$PREFIX/$target"
    mv cuda/include cuda/lib "$PREFIX/$target/"
else
    # These include the target's files. Links would not work: the files look for headers relative to their own path, and CMake does not
    # resolve links.
    find cuda/lib/cmake -name '*-config.cmake' -o -name '*-config-version.cmake' | while read -r file; do
        mkdir -p "$PREFIX/$(dirname "${file#cuda/}")"
        echo "include(\"\${CMAKE_CURRENT_LIST_DIR}/../../../$target/${file#cuda/}\")" > "$PREFIX/${file#cuda/}"
    done
fi
