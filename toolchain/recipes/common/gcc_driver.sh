# SPDX-License-Identifier: Apache-2.0
# Shell function of the gcc and g++ recipes; sourced by build.sh.

# install_driver PROGRAM TOOL: install Debian's driver PROGRAM as libexec/x86_64-conda-linux-gnu-TOOL, and the small program that starts
# it with this prefix's sysroot as bin/x86_64-conda-linux-gnu-TOOL. $PREFIX must have gcc, binutils and the sysroot.
install_driver() {
    local program=$1 name=x86_64-conda-linux-gnu-$2
    mkdir -p "$PREFIX/bin" "$PREFIX/libexec"
    install -m 755 "$program" "$PREFIX/libexec/$name"
    # LD_RUN_PATH would put the prefix into the program. The program would then differ between environments, and compiler caches that
    # compare its bytes would never hit.
    env -u LD_RUN_PATH "$PREFIX/libexec/x86_64-conda-linux-gnu-gcc" --sysroot="$PREFIX/x86_64-conda-linux-gnu/sysroot" -std=gnu11 -O2 -Wall -Werror -s \
        "-ffile-prefix-map=${RECIPE_DIR%/*}=recipes" "-ffile-prefix-map=$PREFIX=prefix" \
        -DDRIVER_NAME="\"$name\"" -DDRIVER_DIGEST="\"$(sha256sum "$program" "$PREFIX"/lib/gcc/x86_64-linux-gnu/12/cc1* | cut -c 1-64 | tr '\n' ' ')\"" \
        -o "$PREFIX/bin/$name" "$RECIPE_DIR/../common/gcc_driver.c"
}
