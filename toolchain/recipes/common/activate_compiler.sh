# SPDX-License-Identifier: Apache-2.0
# Shell function that writes conda's activation scripts from a table of variables; sourced by build.sh.

# write_activation NAME TABLE: write etc/conda/activate.d/activate-NAME.sh and etc/conda/deactivate.d/deactivate-NAME.sh into $PREFIX.
# TABLE is a file of shell assignments, one per line, which are evaluated at activation. Variables that begin with "_" are helpers and
# are unset again. The previous value of a variable is kept in CONDA_BACKUP_<variable> and restored at deactivation. The scripts work
# in every POSIX shell and under `set -eu`.
write_activation() {
    local name=$1 table=$2 variable variables helpers
    local enter=$PREFIX/etc/conda/activate.d/activate-$name.sh leave=$PREFIX/etc/conda/deactivate.d/deactivate-$name.sh
    variables=$(sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' "$table" | awk '!seen[$0]++')
    helpers=$(sed -n 's/^\(_[a-z0-9_]*\)=.*/\1/p' "$table" | sort -u | tr '\n' ' ')
    mkdir -p "$(dirname "$enter")" "$(dirname "$leave")"
    {
        for variable in $variables; do
            printf 'if [ "${%s+set}" = set ]; then export CONDA_BACKUP_%s="${%s}"; else unset CONDA_BACKUP_%s; fi\n' \
                "$variable" "$variable" "$variable" "$variable"
        done
        grep -v '^#' "$table"
        printf 'export'
        printf ' %s' $variables
        printf '\nunset %s\n' "$helpers"
    } > "$enter"
    for variable in $variables; do
        printf 'if [ "${CONDA_BACKUP_%s+set}" = set ]; then export %s="${CONDA_BACKUP_%s}"; unset CONDA_BACKUP_%s; else unset %s; fi\n' \
            "$variable" "$variable" "$variable" "$variable" "$variable"
    done > "$leave"
}
