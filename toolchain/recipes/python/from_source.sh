# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"
. "$RECIPE_DIR/../common/unpack_archive.sh"
. "$RECIPE_DIR/../common/glibc_floor.sh"
. "$RECIPE_DIR/common.sh"

dev=$SRC_DIR/dev
unpack_debs "$dev"
keep_copyright "$dev"
relative_links "$dev"
# Without static libraries, -lz and the like can only mean the shared library.
find "$dev" -name '*.a' -delete
unpack_archive python "python3.*.orig.tar.?z"
cp python/LICENSE copyright/cpython

# The libraries are copied first, because the build imports each extension module at its end.
copy_python_libraries "$dev" libbz2.so.1.0 libcrypto.so.1.1 libffi.so.7 liblzma.so.5 libncursesw.so.6 libpanelw.so.6 libreadline.so.8 \
    libsqlite3.so.0 libssl.so.1.1 libtinfo.so.6 libuuid.so.1 libz.so.1

gil=()
case $PYTHON_VERSION in *t) gil=(--disable-gil) ;; esac

# CPython stores its flags in sysconfig, from where every extension gets them. The activation's flags must not get there.
unset CFLAGS CXXFLAGS CPPFLAGS LDFLAGS
# CPython does not pass these flags to extensions.
export CFLAGS_NODIST=$PREFIX_MAP_FLAGS
# A build ID is a hash over the file, which contains the prefix, so it would differ between folders.
export LDFLAGS_NODIST=-Wl,--build-id=none
# Only for sysconfig, where extensions in C++ find the name.
export CXX=x86_64-conda-linux-gnu-g++
# pkg-config could find libraries of the host. The variables name each library instead.
export PKG_CONFIG=false
export CPPFLAGS="-I$dev/usr/include -I$dev/usr/include/x86_64-linux-gnu"
export LDFLAGS="-L$dev/usr/lib/x86_64-linux-gnu -L$dev/lib/x86_64-linux-gnu -Wl,-rpath,$PREFIX/lib -Wl,-rpath-link,$PREFIX/lib"
export LIBFFI_CFLAGS=' ' LIBFFI_LIBS=-lffi LIBSQLITE3_CFLAGS=' ' LIBSQLITE3_LIBS=-lsqlite3 LIBUUID_CFLAGS="-I$dev/usr/include/uuid" LIBUUID_LIBS=-luuid
export ZLIB_CFLAGS=' ' ZLIB_LIBS=-lz BZIP2_CFLAGS=' ' BZIP2_LIBS=-lbz2 LIBLZMA_CFLAGS=' ' LIBLZMA_LIBS=-llzma
export LIBREADLINE_CFLAGS=' ' LIBREADLINE_LIBS=-lreadline CURSES_CFLAGS=-D_DEFAULT_SOURCE CURSES_LIBS='-lncursesw -ltinfo'
export PANEL_CFLAGS=-D_DEFAULT_SOURCE PANEL_LIBS='-lpanelw -lncursesw -ltinfo'

mkdir build
cd build
../python/configure --prefix="$PREFIX" --with-openssl="$dev/usr" --with-ensurepip=no --with-system-libmpdec=no --without-static-libpython \
    --disable-test-modules --with-ssl-default-suites=openssl --with-computed-gotos OPT='-DNDEBUG -fwrapv -O2 -Wall' "${gil[@]}"
make -j"$CPU_COUNT"
# finish_python writes the bytecode later. -l keeps the installation from compiling all files three times for nothing.
make altinstall COMPILEALL_OPTS=-l
cd ..

stdlib=$PREFIX/lib/python$PYTHON_VERSION
# Remove programs that need a graphical system.
rm -rf "$stdlib"/{idlelib,tkinter,turtledemo,turtle.py,test} "$PREFIX"/bin/idle3* "$PREFIX/lib/pkgconfig" "$PREFIX/share/man"
"$STRIP" "$PREFIX/bin/python$PYTHON_VERSION" "$stdlib"/lib-dynload/*.so
finish_python 2.31
