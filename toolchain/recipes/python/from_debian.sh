# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/unpack_archive.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"
. "$RECIPE_DIR/common.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"
unpack_archive upstream "python${PYTHON_VERSION}_*.orig.tar.?z"

stdlib=$PREFIX/lib/python$PYTHON_VERSION
mkdir -p "$PREFIX/bin" "$PREFIX/lib" "$PREFIX/include"
cp -a "$root/usr/lib/python$PYTHON_VERSION" "$stdlib"
cp -a "$root/usr/include/python$PYTHON_VERSION" "$PREFIX/include/"
# Debian's pyconfig.h only chooses between the architectures of a multiarch system. Use the file for this architecture instead.
cp "$root/usr/include/x86_64-linux-gnu/python$PYTHON_VERSION/pyconfig.h" "$PREFIX/include/python$PYTHON_VERSION/pyconfig.h"

# Debian changes these modules: they search dist-packages, ensurepip is disabled, and Debian's installation is protected from pip. Use
# upstream's files instead; everything else keeps Debian's fixes.
for module in site.py sysconfig.py locale.py distutils ensurepip lib2to3; do
    rm -rf "${stdlib:?}/$module"
    cp -a "upstream/Lib/$module" "$stdlib/$module"
done
rm -r "$stdlib"/{EXTERNALLY-MANAGED,sitecustomize.py,_distutils_system_mod.py,LICENSE.txt,test,distutils/tests,lib2to3/tests}
# Debian has upstream's name for this file as a link.
mv "$stdlib/_sysconfigdata__x86_64-linux-gnu.py" "$stdlib/_sysconfigdata__linux_x86_64-linux-gnu.py"
# The module for the Network Information Service needs two more libraries and is not used.
rm "$stdlib"/lib-dynload/nis.*

copy_python_libraries "$root" libbz2.so.1.0 libcrypt.so.1 libcrypto.so.3 libdb-5.3.so libexpat.so.1 libffi.so.8 liblzma.so.5 libncursesw.so.6 \
    libpanelw.so.6 libreadline.so.8 libsqlite3.so.0 libssl.so.3 libtinfo.so.6 libuuid.so.1 libz.so.1

# Link like Debian: all objects of the library, with symbols visible to extension modules. LD_RUN_PATH is unset: finish_python replaces the
# run path, but the build ID is a hash over the whole file and would differ between folders.
env -u LD_RUN_PATH "$CC" $PREFIX_MAP_FLAGS -O2 -no-pie -Wall -Werror "-I$PREFIX/include/python$PYTHON_VERSION" -o "$PREFIX/bin/python$PYTHON_VERSION" "$RECIPE_DIR/main.c" \
    -Wl,--whole-archive "$stdlib"/config-*/"libpython$PYTHON_VERSION.a" -Wl,--no-whole-archive -Wl,--export-dynamic -s \
    "$PREFIX"/lib/libz.so.1 "$PREFIX"/lib/libexpat.so.1 -lm -ldl -lutil -lpthread

finish_python 2.36
