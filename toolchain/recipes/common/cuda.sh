# SPDX-License-Identifier: Apache-2.0
# Sourced by the recipes of NVIDIA's CUDA toolkit: takes its wheels apart and puts the parts where conda-forge's packages have them.

# Below the prefix: what belongs to the machine that programs are compiled for. Programs that run while compiling lie in bin/.
target=targets/x86_64-linux

# unpack_cuda WHEEL MEMBER...: extract the members that match from the wheel of TOOLCHAIN_SOURCES into ./cuda and its license text into
# ./licenses. Members are named below the wheel's folder for the component, which is another one in every release.
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

# unpack_cuda_deb: the same for the programs in Debian's package, in the folders that the wheels have them in.
unpack_cuda_deb() {
    local own=deb/usr/lib/nvidia-cuda-toolkit program
    dpkg-deb -x "$TOOLCHAIN_SOURCES"/nvidia-cuda-toolkit_*.deb deb
    mkdir -p cuda/bin cuda/nvvm/bin licenses
    for program in __nvcc_device_query bin2c cudafe++ fatbinary nvlink ptxas; do mv "deb/usr/bin/$program" cuda/bin/; done
    # The nvcc in usr/bin is a script that starts this one.
    mv "$own/bin/nvcc" "$own/bin/crt" cuda/bin/
    mv "$own/bin/cicc" cuda/nvvm/bin/
    mv "$own/libdevice" cuda/nvvm/
    mv deb/usr/share/doc/nvidia-cuda-toolkit/copyright licenses/nvidia-cuda-toolkit.txt
    rm -r deb
}

# install_programs FOLDER FILE...: install programs into FOLDER of the prefix, so that they find the channel's libraries and not the host's.
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

# link_in_lib FILE...: make files of the target's lib visible in the prefix's lib as well.
link_in_lib() {
    local file
    mkdir -p "$PREFIX/lib"
    for file in "$@"; do ln -s "../$target/lib/$file" "$PREFIX/lib/$file"; done
}
