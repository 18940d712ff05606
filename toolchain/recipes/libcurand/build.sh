# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_curand*.whl' 'include/curand*.h'
mkdir -p "$PREFIX/$target/include"
mv cuda/include/* "$PREFIX/$target/include/"
