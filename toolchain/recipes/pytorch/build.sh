# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/compile_python.sh"
# Left out: the files of the package libtorch, test programs and libraries, protoc, and the wheel's copy of libgomp.
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/install_wheel.py" "torch-*.whl" "$SITE_PACKAGES" \
    --without 'torch/lib/*' --without 'torch/include/*' --without 'torch/share/*' --without 'torch/test/*' --without 'torch/bin/*'
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/unpack_wheel.py" "torch-*.whl" wheel \
    'torch/lib/libtorch_python.so' 'torch/lib/libtorch_global_deps.so' 'torch/bin/torch_shm_manager'

torch=$PREFIX/$SITE_PACKAGES/torch
up=../../../../.. # from a folder in torch/ to the prefix
mkdir -p "$torch/lib" "$torch/include" "$torch/share/cmake" "$torch/bin"
cp wheel/torch/lib/libtorch_python.so "$PREFIX/lib/"
cp wheel/torch/lib/libtorch_global_deps.so "$torch/lib/"
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/for_cpu.py" "$PREFIX/$SITE_PACKAGES"
install -m 755 wheel/torch/bin/torch_shm_manager "$torch/bin/"

# PyTorch looks for these files in its own folders, so the folders get links to the files of the package libtorch.
for library in "$PREFIX"/lib/lib{c10,shm,torch}*.so "$PREFIX/lib/torch-cuda-stand-ins"; do
    ln -s "$up/lib/$(basename "$library")" "$torch/lib/$(basename "$library")"
done
for header in "$PREFIX"/include/{ATen,c10,caffe2,fmt,pybind11,torch}; do
    ln -s "$up/include/$(basename "$header")" "$torch/include/$(basename "$header")"
done
for package in Caffe2 Torch; do
    ln -s "../$up/share/cmake/$package" "$torch/share/cmake/$package"
done

# The dynamic loader derives $ORIGIN from the path that it opened, without resolving links. So the RPATH of files that Python opens in
# torch/ is the prefix's lib. From there, other libraries, such as libgomp and libstdc++, are found by $ORIGIN.
patchelf --set-rpath '$ORIGIN/../../..' "$torch"/_C.*.so
patchelf --set-rpath '$ORIGIN/../../../..' "$torch/lib/libtorch_global_deps.so" "$torch/bin/torch_shm_manager"
# Python loads this library with RTLD_GLOBAL. If it needed CUDA's runtime, the symbols of the stand-in would be visible to all libraries,
# and PyTorch would look for CUDA's other libraries in site-packages.
patchelf --remove-needed libcudart.so.13 "$torch/lib/libtorch_global_deps.so"
# RPATH instead of RUNPATH: with LD_LIBRARY_PATH, some of CUDA's real libraries could be loaded along with stand-ins of others.
patchelf --force-rpath --set-rpath '$ORIGIN:$ORIGIN/torch-cuda-stand-ins' "$PREFIX/lib/libtorch_python.so"

compile_python torch
