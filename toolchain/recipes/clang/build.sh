# SPDX-License-Identifier: Apache-2.0
# One run for each package: PKG_NAME says which files of Debian's LLVM it takes.
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"

root=$SRC_DIR/debs
from=$root/usr/lib/llvm-22
unpack_debs "$root"
keep_copyright "$root"

# install_tools NAME...: programs of LLVM, which find libLLVM.so in the prefix's lib.
install_tools() {
    local name
    mkdir -p "$PREFIX/bin"
    for name in "$@"; do
        install -m 755 "$(readlink -f "$from/bin/$name")" "$PREFIX/bin/$name"
        patchelf --set-rpath '$ORIGIN/../lib' "$PREFIX/bin/$name"
        glibc_at_most 2.36 "$PREFIX/bin/$name"
    done
}

case $PKG_NAME in
    libllvm22)
        private=$PREFIX/lib/llvm-22
        for library in libbsd.so.0 libedit.so.2 libffi.so.8 libicudata.so.72 libicuuc.so.72 liblzma.so.5 \
            libmd.so.0 libtinfo.so.6 libxml2.so.2 libz.so.1 libz3.so.4 libzstd.so.1; do
            copy_library "$library" "$root" "$private"
        done
        patchelf --set-rpath '$ORIGIN:$ORIGIN/..' "$private"/*
        copy_library libLLVM.so.22.1 "$root" "$PREFIX/lib"
        patchelf --set-rpath '$ORIGIN/llvm-22:$ORIGIN' "$PREFIX/lib/libLLVM.so.22.1"
        ln -s libLLVM.so.22.1 "$PREFIX/lib/libLLVM-22.so"
        glibc_at_most 2.36 "$private"/* "$PREFIX/lib/libLLVM.so.22.1"
        ;;
    libclang-cpp22.1)
        mkdir -p "$PREFIX/lib"
        install -m 644 "$from/lib/libclang-cpp.so.22.1" "$PREFIX/lib/libclang-cpp.so.22.1"
        patchelf --set-rpath '$ORIGIN' "$PREFIX/lib/libclang-cpp.so.22.1"
        glibc_at_most 2.36 "$PREFIX/lib/libclang-cpp.so.22.1"
        ;;
    clang-22)
        install_tools clang-22
        mkdir -p "$PREFIX/lib/clang/22"
        cp -RL "$from/lib/clang/22/include" "$PREFIX/lib/clang/22/include"
        ;;
    clang | clangxx)
        driver=clang
        [ "$PKG_NAME" = clang ] || driver=clang++
        mkdir -p "$PREFIX/bin"
        ln -s clang-22 "$PREFIX/bin/$driver"
        ln -s clang-22 "$PREFIX/bin/x86_64-conda-linux-gnu-$driver"
        # The host compiler's parts, headers and sysroot, relative to this file; not those of the machine.
        # The last line is for the linker alone: GCC's specs say the same, and gcc_impl's build.sh says why.
        cat > "$PREFIX/bin/$driver.cfg" <<'END'
--gcc-install-dir=<CFGDIR>/../lib/gcc/x86_64-linux-gnu/12
--sysroot=<CFGDIR>/../x86_64-conda-linux-gnu/sysroot
$-Wl,--allow-shlib-undefined
END
        ;;
    clang-tools) install_tools clang-linker-wrapper clang-offload-bundler clang-offload-packager clang-scan-deps ;;
    lld)
        install_tools lld
        patchelf --set-rpath '$ORIGIN/../lib:$ORIGIN/../lib/llvm-22' "$PREFIX/bin/lld"
        for name in ld.lld ld64.lld lld-link wasm-ld; do ln -s lld "$PREFIX/bin/$name"; done
        ;;
    llvm-tools)
        install_tools llc llvm-ar llvm-as llvm-cxxfilt llvm-dis llvm-dwarfdump llvm-link llvm-mc llvm-nm llvm-objcopy \
            llvm-objdump llvm-ranlib llvm-readelf llvm-readobj llvm-size llvm-strings llvm-strip opt
        mkdir -p "$PREFIX/lib/llvm-22"
        printf 'CURL_OPENSSL_4 { global: curl_*; local: *; };\n' > curl.map
        "$CC" -shared -fPIC -O2 -Wl,-soname,libcurl.so.4 -Wl,--version-script=curl.map \
            "$RECIPE_DIR/curl_stub.c" -o "$PREFIX/lib/llvm-22/libcurl.so.4"
        patchelf --set-rpath '$ORIGIN/../lib:$ORIGIN/../lib/llvm-22' "$PREFIX/bin/llvm-objdump"
        ;;
esac
