# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

for library in libgcc_s.so.1 libatomic.so.1 libitm.so.1 libquadmath.so.0; do
    copy_library "$library" "$root" "$PREFIX/lib"
    patchelf --set-rpath '$ORIGIN' "$PREFIX/lib/$library"
    glibc_at_most 2.35 "$PREFIX/lib/$library"
done
