# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
shopt -s nullglob
unpack() { "$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/unpack_wheel.py" "$@"; }

unpack "torch-*.whl" wheel 'torch/lib/*.so' 'torch/include/*' 'torch/share/cmake/*' '*.dist-info/licenses/*'
mkdir -p "$PREFIX/lib" "$PREFIX/include" "$PREFIX/share/cmake"

# What the C++ side consists of: not Python's bindings (package pytorch), not test libraries, not the wheel's copy of libgomp.
rm -f wheel/torch/lib/libtorch{_python,_global_deps,bind_test}.so
mv wheel/torch/lib/lib{c10,caffe2,shm,torch}*.so "$PREFIX/lib/"
mv wheel/torch/include/* "$PREFIX/include/"
mv wheel/torch/share/cmake/* "$PREFIX/share/cmake/"
mv wheel/torch-*.dist-info/licenses licenses

# The default build does not load without these, on a machine without a GPU either. Beside torch's libraries its $ORIGIN finds them.
for nvidia in "$TOOLCHAIN_SOURCES"/nvidia_*.whl; do
    unpack "$(basename "$nvidia")" nvidia 'nvidia/*/lib/*.so*' '*.dist-info/*'
    mv nvidia/nvidia/*/lib/*.so* "$PREFIX/lib/"
    mv nvidia/*.dist-info licenses/
    rm -r nvidia
done
