# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
unpack() { "$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/unpack_wheel.py" "$@"; }

unpack "torch-*.whl" wheel 'torch/lib/*.so' 'torch/include/*' 'torch/share/cmake/*' '*.dist-info/licenses/*'
mkdir -p "$PREFIX/lib" "$PREFIX/include" "$PREFIX/share/cmake"
torch=wheel/torch

# Never loaded without a GPU.
rm "$torch"/lib/lib{caffe2_nvrtc,torch_cuda_linalg}.so
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/for_cpu.py" "$torch"

# In a folder of their own, where only PyTorch's libraries look: a real library of the same name may lie in the prefix's lib.
folder=torch-cuda-stand-ins
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/stand_ins.py" stand-ins "$torch"/lib/*.so
mkdir "$PREFIX/lib/$folder"
# rattler-build's default run path, which the linker takes where none is given: stand-ins need no library, and it names this prefix.
unset LD_RUN_PATH
while read -r name; do
    script=()
    [ ! -s "stand-ins/$name.map" ] || script=("-Wl,--version-script=stand-ins/$name.map")
    "$CC" -std=gnu11 -O1 -Wall -Werror -fPIC -shared -nostdlib -s -Wl,-soname,"$name" -Wl,--build-id=none "${script[@]}" \
        "stand-ins/$name.c" -o "$PREFIX/lib/$folder/$name"
done < stand-ins/names

# What the C++ side consists of: Python's bindings are in the package pytorch, libgomp in its own.
rm "$torch"/lib/libtorch_{python,global_deps}.so
for library in "$torch"/lib/*.so; do
    # RPATH, not RUNPATH: LD_LIBRARY_PATH must not put CUDA's real libraries beside stand-ins for the others.
    patchelf --force-rpath --set-rpath "\$ORIGIN:\$ORIGIN/$folder" "$library"
done
mv "$torch"/lib/*.so "$PREFIX/lib/"
mv "$torch"/include/* "$PREFIX/include/"
mv "$torch"/share/cmake/* "$PREFIX/share/cmake/"
mv wheel/torch-*.dist-info/licenses licenses
