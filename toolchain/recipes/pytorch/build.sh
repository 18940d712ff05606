# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/compile_python.sh"
# Not taken: what libtorch has, test programs and test libraries, protoc, and the wheel's copy of libgomp.
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

# PyTorch looks for these in its own folders; it finds the libtorch package there.
for library in "$PREFIX"/lib/lib{c10,shm,torch}*.so "$PREFIX/lib/torch-cuda-stand-ins"; do
    ln -s "$up/lib/$(basename "$library")" "$torch/lib/$(basename "$library")"
done
for header in "$PREFIX"/include/{ATen,c10,caffe2,fmt,pybind11,torch}; do
    ln -s "$up/include/$(basename "$header")" "$torch/include/$(basename "$header")"
done
for package in Caffe2 Torch; do
    ln -s "../$up/share/cmake/$package" "$torch/share/cmake/$package"
done

# The dynamic loader takes $ORIGIN from the path it opened, links unresolved: the files that Python opens in torch/ name the prefix's
# lib, where the rest finds its neighbours, libgomp and libstdc++ among them, by its own $ORIGIN.
patchelf --set-rpath '$ORIGIN/../../..' "$torch"/_C.*.so
patchelf --set-rpath '$ORIGIN/../../../..' "$torch/lib/libtorch_global_deps.so" "$torch/bin/torch_shm_manager"
# Python loads this one with RTLD_GLOBAL: with CUDA's runtime in it, the stand-in would be offered to every other library, and PyTorch
# would go looking for the rest of CUDA in site-packages.
patchelf --remove-needed libcudart.so.13 "$torch/lib/libtorch_global_deps.so"
# RPATH, not RUNPATH: LD_LIBRARY_PATH must not put CUDA's real libraries beside stand-ins for the others.
patchelf --force-rpath --set-rpath '$ORIGIN:$ORIGIN/torch-cuda-stand-ins' "$PREFIX/lib/libtorch_python.so"

compile_python torch
