# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
unpack() { "$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/unpack_wheel.py" "$@"; }

unpack "torch-*.whl" wheel 'torch/lib/*.so' 'torch/include/*' 'torch/share/cmake/*' '*.dist-info/licenses/*'
mkdir -p "$PREFIX/lib" "$PREFIX/include" "$PREFIX/share/cmake"
torch=wheel/torch

# These are never loaded without a GPU.
rm "$torch"/lib/lib{caffe2_nvrtc,torch_cuda_linalg}.so
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/for_cpu.py" "$torch"

# The stand-ins are in a separate folder that only PyTorch's libraries search: the prefix's lib may have a real library of the same name.
folder=torch-cuda-stand-ins
"$TOOLCHAIN_PYTHON" "$RECIPE_DIR/stand_ins.py" stand-ins "$torch"/lib/*.so
mkdir "$PREFIX/lib/$folder"
# The linker would use rattler-build's default run path, which contains this prefix. Stand-ins need no library.
unset LD_RUN_PATH
while read -r name; do
    script=()
    [ ! -s "stand-ins/$name.map" ] || script=("-Wl,--version-script=stand-ins/$name.map")
    "$CC" -std=gnu11 -O1 -Wall -Werror -fPIC -shared -nostdlib -s -Wl,-soname,"$name" -Wl,--build-id=none "${script[@]}" \
        "stand-ins/$name.c" -o "$PREFIX/lib/$folder/$name"
done < stand-ins/names

# The Python bindings are in the package pytorch, and libgomp is a separate package.
rm "$torch"/lib/libtorch_{python,global_deps}.so
for library in "$torch"/lib/*.so; do
    # RPATH instead of RUNPATH: with LD_LIBRARY_PATH, some of CUDA's real libraries could be loaded along with stand-ins of others.
    patchelf --force-rpath --set-rpath "\$ORIGIN:\$ORIGIN/$folder" "$library"
done
mv "$torch"/lib/*.so "$PREFIX/lib/"
mv "$torch"/include/* "$PREFIX/include/"
mv "$torch"/share/cmake/* "$PREFIX/share/cmake/"
mv wheel/torch-*.dist-info/licenses licenses
