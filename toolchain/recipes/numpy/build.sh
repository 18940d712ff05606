# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/compile_python.sh"
# Without its tests, which are a third of its files.
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/install_wheel.py" "numpy-*.whl" "$SITE_PACKAGES" --scripts --without 'numpy/*/tests/*'
compile_python numpy
