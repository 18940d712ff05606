# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
"$TOOLCHAIN_PYTHON" -m zipfile -e "$TOOLCHAIN_SOURCES"/cmake-*.whl wheel
mkdir -p "$PREFIX/bin" "$PREFIX/share"
cp wheel/cmake/data/bin/{cmake,ctest,cpack} "$PREFIX/bin/"
chmod 755 "$PREFIX"/bin/*
cp -r wheel/cmake/data/share/cmake-* "$PREFIX/share/"
# The reference manuals are two thirds of the files, and no build reads them.
rm -rf "$PREFIX"/share/cmake-*/Help
cp wheel/cmake-*.dist-info/licenses/LICENSE_BSD_3 .
