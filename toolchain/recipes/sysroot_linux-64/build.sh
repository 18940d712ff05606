# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"

root=$PREFIX/x86_64-conda-linux-gnu/sysroot
unpack_debs "$root"
keep_copyright "$root"
relative_links "$root"

# Keep only files that a compiler or a linker reads. The rest (audit modules, locales, converters, manuals) belongs to a running system.
rm -r "$root/usr/share" "$root/etc" "$root/usr/lib/x86_64-linux-gnu/gconv" "$root/usr/lib/x86_64-linux-gnu/audit"
rm -rf "$root/usr/bin" "$root/usr/sbin" "$root/sbin"
find "$root" -xtype l -print -delete
