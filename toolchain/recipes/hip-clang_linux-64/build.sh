# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/activate_compiler.sh"

unpack_debs "$SRC_DIR/debs"
keep_copyright "$SRC_DIR/debs"
cat > table <<'END'
HIPCXX=${CONDA_PREFIX}/bin/x86_64-conda-linux-gnu-clang++
ROCM_PATH=${CONDA_PREFIX}
END
write_activation hip-clang_linux-64 table
