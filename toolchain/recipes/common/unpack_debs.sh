# SPDX-License-Identifier: Apache-2.0
# Sourced by recipes made from Debian packages.

# unpack_debs FOLDER [PATTERN...]: extract the .deb files of TOOLCHAIN_SOURCES that match (all of them without a pattern) into FOLDER,
# without running their scripts.
unpack_debs() {
    local folder=$1 pattern deb found
    shift
    mkdir -p "$folder"
    for pattern in "${@:-*.deb}"; do
        found=no
        for deb in "$TOOLCHAIN_SOURCES"/$pattern; do
            [ -e "$deb" ] || continue
            dpkg-deb -x "$deb" "$folder"
            found=yes
        done
        if [ $found = no ]; then
            echo "no file in TOOLCHAIN_SOURCES matches $pattern" >&2
            return 1
        fi
    done
}
