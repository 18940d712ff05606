# SPDX-License-Identifier: Apache-2.0
# Sourced by recipes of packages for one interpreter.

# compile_python: write the bytecode of everything in SITE_PACKAGES in one go; rattler-build would start an interpreter for every file.
# Files named after a Python version (py312_x.py) may hold syntax that this one does not know. Hash-based, so that the times of files do
# not matter, and without the build's path in it.
compile_python() {
    "$PREFIX/bin/python" -B -m compileall -q -f -x "/py3[0-9]+_" -j "${CPU_COUNT:-1}" --invalidation-mode unchecked-hash -s "$PREFIX" \
        -p / "$PREFIX/$SITE_PACKAGES/$1"
}
