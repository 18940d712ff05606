# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

mkdir -p "$PREFIX/include" "$PREFIX/share/hip" "$PREFIX/lib/cmake/hip-lang"
cp -R "$root/usr/include/hip" "$PREFIX/include/hip"
cp "$root/usr/share/hip/version" "$PREFIX/share/hip/version"
cp "$RECIPE_DIR/hip-lang-config.cmake" "$PREFIX/lib/cmake/hip-lang/hip-lang-config.cmake"
