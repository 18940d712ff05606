# SPDX-License-Identifier: Apache-2.0
# The variables that conda-forge's activation of the C compiler sets. While a package is being built, flags name its host prefix.
# Previous values of flag variables are replaced, as on conda-forge, so that packages do not depend on the builder's environment.
# Package tests set CONDA_BUILD too, but have only one prefix.
_building=0
if [ "${CONDA_BUILD:-0}" = 1 ] && [ -n "${BUILD_PREFIX:-}" ] && [ -n "${PREFIX:-}" ] && [ -n "${SRC_DIR:-}" ]; then _building=1; fi
_host="${CONDA_PREFIX}"
if [ "${_building}" = 1 ]; then _host="${PREFIX}"; fi
_tool="${CONDA_PREFIX}/bin/x86_64-conda-linux-gnu"
# -ffile-prefix-map covers __FILE__ and debug information, so that builds give the same bytes in every folder.
_map="-ffile-prefix-map=${_host}=/usr/local/src/conda-prefix"
if [ "${_building}" = 1 ]; then _map="-ffile-prefix-map=${SRC_DIR}=/usr/local/src/conda ${_map} -ffile-prefix-map=${BUILD_PREFIX}=/usr/local/src/conda-build-prefix"; fi
HOST="x86_64-conda-linux-gnu"
BUILD="x86_64-conda-linux-gnu"
# Only the maps, for builds that do not use the other flags.
PREFIX_MAP_FLAGS="${_map}"
CONDA_TOOLCHAIN_HOST="x86_64-conda-linux-gnu"
CONDA_TOOLCHAIN_BUILD="x86_64-conda-linux-gnu"
CONDA_BUILD_CROSS_COMPILATION=""
CONDA_BUILD_SYSROOT="${CONDA_PREFIX}/x86_64-conda-linux-gnu/sysroot"
CC="${_tool}-gcc"
CPP="${_tool}-cpp"
GCC="${_tool}-gcc"
GCC_AR="${_tool}-gcc-ar"
GCC_NM="${_tool}-gcc-nm"
GCC_RANLIB="${_tool}-gcc-ranlib"
CC_FOR_BUILD="${_tool}-gcc"
CPP_FOR_BUILD="${_tool}-cpp"
ADDR2LINE="${_tool}-addr2line"
AR="${_tool}-ar"
AS="${_tool}-as"
CXXFILT="${_tool}-c++filt"
ELFEDIT="${_tool}-elfedit"
GPROF="${_tool}-gprof"
LD="${_tool}-ld"
LD_GOLD="${_tool}-ld.gold"
NM="${_tool}-nm"
OBJCOPY="${_tool}-objcopy"
OBJDUMP="${_tool}-objdump"
RANLIB="${_tool}-ranlib"
READELF="${_tool}-readelf"
SIZE="${_tool}-size"
STRINGS="${_tool}-strings"
STRIP="${_tool}-strip"
CPPFLAGS="-DNDEBUG -D_FORTIFY_SOURCE=2 -O2 -isystem ${_host}/include"
CFLAGS="-fPIC -fstack-protector-strong -fno-plt -O2 -ffunction-sections -pipe -isystem ${_host}/include ${_map}"
LDFLAGS="-Wl,-O2 -Wl,--sort-common -Wl,--as-needed -Wl,-z,relro -Wl,-z,now -Wl,--gc-sections -Wl,-rpath,${_host}/lib -Wl,-rpath-link,${_host}/lib -L${_host}/lib"
CMAKE_ARGS="-DCMAKE_AR=${_tool}-ar -DCMAKE_C_COMPILER_AR=${_tool}-gcc-ar -DCMAKE_CXX_COMPILER_AR=${_tool}-gcc-ar -DCMAKE_RANLIB=${_tool}-ranlib -DCMAKE_C_COMPILER_RANLIB=${_tool}-gcc-ranlib -DCMAKE_CXX_COMPILER_RANLIB=${_tool}-gcc-ranlib -DCMAKE_LINKER=${_tool}-ld -DCMAKE_NM=${_tool}-nm -DCMAKE_OBJCOPY=${_tool}-objcopy -DCMAKE_OBJDUMP=${_tool}-objdump -DCMAKE_READELF=${_tool}-readelf -DCMAKE_STRIP=${_tool}-strip -DCMAKE_BUILD_TYPE=Release"
if [ "${_building}" = 1 ]; then CMAKE_ARGS="${CMAKE_ARGS} -DCMAKE_FIND_ROOT_PATH=${PREFIX};${BUILD_PREFIX}/x86_64-conda-linux-gnu/sysroot -DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=NEVER -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY -DCMAKE_INSTALL_PREFIX=${PREFIX} -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_PROGRAM_PATH=${BUILD_PREFIX}/bin;${PREFIX}/bin"; fi
# For __DATE__ and __TIME__: rattler-build would set the time of the build.
if [ "${_building}" = 1 ]; then export SOURCE_DATE_EPOCH=315532800; fi
