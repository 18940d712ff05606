# SPDX-License-Identifier: Apache-2.0
# Shell function for packages that are for one interpreter; sourced by build.sh.

# compile_python NAME: compile the package NAME in SITE_PACKAGES to bytecode with one process; rattler-build would start an interpreter
# per file. Files named after a Python version (py312_x.py) are skipped, because they may have syntax that this interpreter does not
# know. The bytecode is hash-based, so it does not depend on file times, and it does not contain the build's path.
compile_python() {
    "$PREFIX/bin/python" -B -m compileall -q -f -x "/py3[0-9]+_" -j "${CPU_COUNT:-1}" --invalidation-mode unchecked-hash -s "$PREFIX" \
        -p / "$PREFIX/$SITE_PACKAGES/$1"
}
