# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/activate_compiler.sh"

unpack_debs "$SRC_DIR/debs"
keep_copyright "$SRC_DIR/debs"
write_activation gxx_linux-64 "$RECIPE_DIR/variables.sh"
