# SPDX-License-Identifier: Apache-2.0
# Shell functions for recipes made from Debian packages; sourced by build.sh.

# unpack_debs FOLDER [PATTERN...]: extract the matching .deb files in TOOLCHAIN_SOURCES (by default all) into FOLDER, without running
# their scripts.
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

# keep_copyright ROOT: copy the copyright files of the packages unpacked in ROOT to ./copyright/, for the recipe's license_file.
keep_copyright() {
    local file name
    mkdir -p copyright
    for file in "$1"/usr/share/doc/*/copyright; do
        [ -f "$file" ] || continue
        name=$(basename "$(dirname "$file")")
        cp -L "$file" "copyright/$name"
    done
}

# copy_library NAME ROOT FOLDER: copy the shared library NAME from ROOT's library folders into FOLDER. Links are followed; the copy is
# called NAME.
copy_library() {
    local candidate
    mkdir -p "$3"
    for candidate in "$2"/usr/lib/x86_64-linux-gnu/"$1" "$2"/lib/x86_64-linux-gnu/"$1"; do
        if [ -e "$candidate" ]; then
            install -m 644 "$(readlink -f "$candidate")" "$3/$1"
            return
        fi
    done
    echo "there is no library $1 below $2" >&2
    return 1
}

# relative_links ROOT: make absolute links below ROOT relative, with ROOT as the root of the file system.
relative_links() {
    local link
    find "$1" -type l -lname '/*' | while read -r link; do
        ln -sfn "$(realpath -m -s --relative-to="$(dirname "$link")" "$1$(readlink "$link")")" "$link"
    done
}
