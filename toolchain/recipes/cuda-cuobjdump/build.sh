# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/cuda.sh"

unpack_cuda 'nvidia_cuda_cuobjdump*.whl' 'bin/*'
mkdir -p "$PREFIX/bin"
install -m 755 cuda/bin/cuobjdump "$PREFIX/bin/cuobjdump"
