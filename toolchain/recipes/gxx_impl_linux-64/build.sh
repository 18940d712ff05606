# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"
. "$RECIPE_DIR/../common/gcc_driver.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

parts=$PREFIX/lib/gcc/x86_64-linux-gnu/12
from=$root/usr/lib/gcc/x86_64-linux-gnu/12
install -m 755 "$from/cc1plus" "$from/g++-mapper-server" "$parts"
patchelf --set-rpath '$ORIGIN/private' "$parts/cc1plus"
glibc_at_most 2.36 "$parts/cc1plus" "$parts/g++-mapper-server"
ln -s ../../../libstdc++.so.6 "$parts/libstdc++.so"

# GCC finds both folders relative to its parts.
mkdir -p "$PREFIX/include/x86_64-linux-gnu"
cp -a "$root/usr/include/c++" "$PREFIX/include/c++"
cp -a "$root/usr/include/x86_64-linux-gnu/c++" "$PREFIX/include/x86_64-linux-gnu/c++"

install_driver "$root/usr/bin/x86_64-linux-gnu-g++-12" g++
ln -s x86_64-conda-linux-gnu-g++ "$PREFIX/bin/x86_64-conda-linux-gnu-c++"
