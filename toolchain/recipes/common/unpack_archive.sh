# SPDX-License-Identifier: Apache-2.0
# Shell function for recipes made from source packages; sourced by build.sh.

# unpack_archive FOLDER PATTERN: unpack the archive in TOOLCHAIN_SOURCES that matches PATTERN into FOLDER, without its topmost folder.
# This uses Python, because tar needs programs (xz) that a small system lacks.
unpack_archive() {
    local folder=$1 part=$1.part archive
    for archive in "$TOOLCHAIN_SOURCES"/$2; do
        [ -e "$archive" ] || { echo "no file in TOOLCHAIN_SOURCES matches $2" >&2; return 1; }
        "$TOOLCHAIN_PYTHON" -m tarfile -e "$archive" "$part"
        mv "$part"/* "$folder"
        rmdir "$part"
        return
    done
}
