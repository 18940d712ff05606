# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/unpack_wheel.py" "torch-*.whl" wheel \
    'torch/lib/*.so' 'torch/include/*' 'torch/share/cmake/*' '*.dist-info/licenses/*'

mkdir -p "$PREFIX/lib" "$PREFIX/include" "$PREFIX/share/cmake"
# What the C++ side consists of: not Python's bindings (package pytorch), not test libraries, not the wheel's copy of libgomp.
for library in libc10 libshm libtorch libtorch_cpu; do
    mv "wheel/torch/lib/$library.so" "$PREFIX/lib/"
done
mv wheel/torch/include/* "$PREFIX/include/"
mv wheel/torch/share/cmake/* "$PREFIX/share/cmake/"
mv wheel/torch-*.dist-info/licenses licenses
