# SPDX-License-Identifier: Apache-2.0
# Shell functions that compare ELF files with the glibc they may ask for; sourced by build.sh.

# newest_glibc FILE...: print the newest GLIBC_x.y version that one of the ELF files requires, as x.y; nothing when none does.
# Reads the names of the versions out of the files: neither the machine nor this channel has a readelf at that stage.
newest_glibc() {
    { grep -aohE 'GLIBC_[0-9]+(\.[0-9]+)+' "$@" || true; } | sed 's/GLIBC_//' | sort -Vu | tail -n 1
}

# glibc_at_most LIMIT FILE...: fail, naming the file, when one of the files needs a glibc newer than LIMIT.
glibc_at_most() {
    local limit=$1 file newest
    shift
    for file in "$@"; do
        newest=$(newest_glibc "$file")
        [ -z "$newest" ] && continue
        if [ "$(printf '%s\n%s\n' "$limit" "$newest" | sort -V | tail -n 1)" != "$limit" ]; then
            echo "$file needs glibc $newest, at most $limit is declared" >&2
            return 1
        fi
    done
}
