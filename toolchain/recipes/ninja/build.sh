# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
"$TOOLCHAIN_PYTHON" -m zipfile -e "$TOOLCHAIN_SOURCES"/ninja-*.whl wheel
mkdir -p "$PREFIX/bin"
cp wheel/ninja-*.data/scripts/ninja "$PREFIX/bin/"
chmod 755 "$PREFIX/bin/ninja"
cp wheel/ninja-*.dist-info/licenses/LICENSE_Apache_20 .
