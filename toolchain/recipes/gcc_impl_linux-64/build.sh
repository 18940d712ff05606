# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"
. "$RECIPE_DIR/../common/gcc_driver.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

# The folder keeps Debian's name, which is compiled into the driver.
parts=$PREFIX/lib/gcc/x86_64-linux-gnu/12
mkdir -p "$(dirname "$parts")"
cp -a "$root/usr/lib/gcc/x86_64-linux-gnu/12" "$parts"

# Remove static libraries that were built for glibc 2.34 or newer and cannot be linked with 2.31, and the debugger's plugins.
rm -r "$parts"/lib{asan,gomp,itm,lsan,tsan,ubsan}.a "$parts/plugin" "$parts/libcc1.so"
cp "$root/usr/lib/gcc/x86_64-linux-gnu/10/libgcc_eh.a" "$parts/libgcc_eh.a"

for link in "$parts"/*.so; do
    [ -L "$link" ] || continue
    ln -sfn "../../../$(basename "$(readlink "$link")")" "$link"
done
# The linker script libgcc_s.so names it, and the linker does not search Debian's folder for it.
ln -s ../../../libgcc_s.so.1 "$parts/libgcc_s.so.1"

# GCC looks for these names next to its parts before it searches PATH.
for tool in ar as ld ld.bfd ld.gold nm ranlib strip; do
    ln -s "../../../../x86_64-conda-linux-gnu/bin/$tool" "$parts/$tool"
done

for library in libgmp.so.10 libisl.so.23 libmpc.so.3 libmpfr.so.6 libzstd.so.1 libz.so.1; do
    copy_library "$library" "$root" "$parts/private"
    patchelf --set-rpath '$ORIGIN' "$parts/private/$library"
done
for program in cc1 lto1; do
    patchelf --set-rpath '$ORIGIN/private' "$parts/$program"
done
glibc_at_most 2.36 "$parts"/{cc1,lto1,collect2,lto-wrapper} "$parts"/private/*

# The runtime libraries were built for a newer glibc than the sysroot's, so the linker must allow undefined symbols in shared libraries. Their
# packages require a suitable glibc with __glibc. Undefined symbols in the linked objects remain errors.
"$root/usr/bin/x86_64-linux-gnu-gcc-12" -dumpspecs | sed '/^\*link:$/{n;s/^/--allow-shlib-undefined /}' > "$parts/specs"
grep -q '^--allow-shlib-undefined ' "$parts/specs"

install_driver "$root/usr/bin/x86_64-linux-gnu-gcc-12" gcc
install_driver "$root/usr/bin/x86_64-linux-gnu-cpp-12" cpp
for tool in gcc-ar gcc-nm gcc-ranlib gcov; do
    install -m 755 "$root/usr/bin/x86_64-linux-gnu-$tool-12" "$PREFIX/bin/x86_64-conda-linux-gnu-$tool"
done
ln -s x86_64-conda-linux-gnu-gcc "$PREFIX/bin/x86_64-conda-linux-gnu-cc"
