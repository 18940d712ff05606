# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

mkdir -p "$PREFIX/bin"
install -m 755 "$root/usr/bin/ccache" "$PREFIX/bin/"
patchelf --set-rpath '$ORIGIN/../lib/ccache:$ORIGIN/../lib' "$PREFIX/bin/ccache"
for library in libhiredis.so.0.14 libzstd.so.1; do
    copy_library "$library" "$root" "$PREFIX/lib/ccache"
done
glibc_at_most 2.34 "$PREFIX/bin/ccache" "$PREFIX"/lib/ccache/*
