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
