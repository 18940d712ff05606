# SPDX-License-Identifier: Apache-2.0
# Shell functions that check which glibc ELF files need; sourced by build.sh.

# newest_glibc FILE...: print the newest GLIBC_x.y version that one of the ELF files requires, as x.y, or nothing if none requires one.
# It searches the files for names of versions, because no readelf is available at that stage.
newest_glibc() {
    { grep -aohE 'GLIBC_[0-9]+(\.[0-9]+)+' "$@" || true; } | sed 's/GLIBC_//' | sort -Vu | tail -n 1
}

# glibc_at_most LIMIT FILE...: fail if a file needs a glibc newer than LIMIT, and name the file.
glibc_at_most() {
    local limit=$1 file newest
    shift
    for file in "$@"; do
        newest=$(newest_glibc "$file")
        [ -z "$newest" ] && continue
        if [ "$(printf '%s\n%s\n' "$limit" "$newest" | sort -V | tail -n 1)" != "$limit" ]; then
            echo "$file needs glibc $newest, but the recipe declares at most $limit" >&2
            return 1
        fi
    done
}
