# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"

root=$PREFIX/x86_64-conda-linux-gnu/sysroot
unpack_debs "$root"
keep_copyright "$root"
relative_links "$root"

# Only what a compiler and a linker read. The loader's hardware-specific copies, locales, converters and manuals belong to a running
# system.
rm -r "$root/usr/share" "$root/etc" "$root/usr/lib/x86_64-linux-gnu/gconv" "$root/usr/lib/x86_64-linux-gnu/audit"
rm -rf "$root/usr/bin" "$root/usr/sbin" "$root/sbin"
find "$root" -xtype l -print -delete
