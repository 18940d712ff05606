# SPDX-License-Identifier: Apache-2.0
# Shell functions for the recipes of NVIDIA's CUDA toolkit; sourced by build.sh. They unpack NVIDIA's wheels and place the files where
# conda-forge's packages have them.

# The folder in the prefix for files of the target machine. Programs that run during compilation are in bin/.
target=targets/x86_64-linux

# unpack_cuda WHEEL MEMBER...: extract the matching members of a wheel in TOOLCHAIN_SOURCES into ./cuda, and its license text into
# ./licenses. MEMBER is relative to the wheel's folder for the component, whose name differs between releases.
unpack_cuda() {
    local wheel=$1 member patterns=()
    shift
    for member in "$@"; do patterns+=("nvidia/*/$member"); done
    "$TOOLCHAIN_PYTHON" "$RECIPE_DIR/../common/unpack_wheel.py" "$wheel" wheel "${patterns[@]}" '*.dist-info/*icense*'
    mkdir -p cuda licenses
    cp -R wheel/nvidia/*/. cuda/
    find wheel -path '*.dist-info/*' -type f -exec cp {} "licenses/$(basename "$(find wheel -maxdepth 1 -name '*.dist-info')" .dist-info).txt" \;
    rm -r wheel
}

# unpack_cuda_deb: extract the programs of Debian's package into ./cuda, in the folders that the wheels use.
unpack_cuda_deb() {
    local own=deb/usr/lib/nvidia-cuda-toolkit program
    dpkg-deb -x "$TOOLCHAIN_SOURCES"/nvidia-cuda-toolkit_*.deb deb
    mkdir -p cuda/bin cuda/nvvm/bin licenses
    for program in __nvcc_device_query bin2c cudafe++ fatbinary nvlink ptxas; do mv "deb/usr/bin/$program" cuda/bin/; done
    # usr/bin/nvcc is a script that starts this program.
    mv "$own/bin/nvcc" "$own/bin/crt" cuda/bin/
    mv "$own/bin/cicc" cuda/nvvm/bin/
    mv "$own/libdevice" cuda/nvvm/
    mv deb/usr/share/doc/nvidia-cuda-toolkit/copyright licenses/nvidia-cuda-toolkit.txt
    rm -r deb
}

# install_programs FOLDER FILE...: install programs into FOLDER of the prefix and make them use the channel's libraries, not the host's.
install_programs() {
    local folder=$PREFIX/$1 up file name
    up=$(realpath -m --relative-to="$folder" "$PREFIX/lib")
    shift
    mkdir -p "$folder"
    for file in "$@"; do
        name=$(basename "$file")
        install -m 755 "$file" "$folder/$name"
        patchelf --force-rpath --set-rpath "\$ORIGIN/$up" "$folder/$name"
    done
}

# link_in_lib FILE...: link files of the target's lib into the prefix's lib.
link_in_lib() {
    local file
    mkdir -p "$PREFIX/lib"
    for file in "$@"; do ln -s "../$target/lib/$file" "$PREFIX/lib/$file"; done
}
