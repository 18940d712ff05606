# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_archive.sh"

unpack_archive highway "highway_*.orig.tar.?z"
case "$(command -v "$CXX")" in "$BUILD_PREFIX"/*) ;; *) echo "$CXX is not the channel's compiler" >&2; exit 1 ;; esac

# Only headers of contrib are packaged. Its library, a sorting routine for every instruction set, takes minutes to compile and is not used.
cmake -S highway -B build $CMAKE_ARGS -DHWY_FORCE_STATIC_LIBS=ON -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DHWY_ENABLE_CONTRIB=OFF \
    -DHWY_ENABLE_EXAMPLES=OFF -DHWY_ENABLE_TESTS=OFF -DCMAKE_VERBOSE_MAKEFILE=ON
cmake --build build -j "$CPU_COUNT"
cmake --install build

for folder in algo dot math unroller; do
    mkdir -p "$PREFIX/include/hwy/contrib/$folder"
    cp highway/hwy/contrib/"$folder"/*-inl.h "$PREFIX/include/hwy/contrib/$folder/"
done
rm -rf "$PREFIX/include/hwy/tests"
