#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compiles the libraries of one package, PKG_NAME, and installs them. setup.py decides what to build.
set -euo pipefail

# PATH ends with the caller's directories, so a compiler that the build environment lacks would
# silently be the host's.
case $VLLM_TARGET_DEVICE in
  cuda) gpu_compiler=nvcc ;;
  rocm) gpu_compiler=${HIPCXX:-hip} ;;
  *) gpu_compiler=cmake ;;
esac
for tool in "$CC" "$CXX" cmake ninja "$gpu_compiler"; do
  found=$(command -v "$tool" || true)
  case "$found" in
    "$BUILD_PREFIX"/*) echo "$tool: $found" ;;
    *) echo "error: $tool is '${found:-missing}', expected a program of the build environment $BUILD_PREFIX" >&2; exit 1 ;;
  esac
done

# rattler-build sets SOURCE_DATE_EPOCH to the time of the build, which no package may contain.
export SOURCE_DATE_EPOCH=315532800
export CMAKE_GENERATOR=Ninja
export VLLM_COMPONENTS="$PKG_NAME"

# The host prefix has the longest permitted name, and each output folder has a different one. Through
# this link, headers have the same path relative to the work directory in every build: the compiler
# cache hits, and no such name gets into a binary.
ln -sfn "$PREFIX" "$SRC_DIR/host"
export CFLAGS="${CFLAGS//"$PREFIX"/"$SRC_DIR/host"}" CXXFLAGS="${CXXFLAGS//"$PREFIX"/"$SRC_DIR/host"}"

# rattler-build's relinker knows the archive's layout but not the installed one. It puts the path
# below first, as DT_RPATH. The link step does the same, so the relinker rewrites nothing and the
# sha256 in build_info remains the file's. CMake appends the paths that take effect.
export LDFLAGS="$LDFLAGS -Wl,--disable-new-dtags -Wl,-rpath,'\$ORIGIN/$VLLM_RELINKED_RPATH'"

if [ -n "${CCACHE_DIR:-}" ] && ! { mkdir -p "$CCACHE_DIR" && [ -w "$CCACHE_DIR" ] && ccache --print-stats > /dev/null; }; then
  echo "warning: compiling without ccache, which cannot use CCACHE_DIR=$CCACHE_DIR" >&2
  unset CCACHE_DIR
fi
if [ -n "${CCACHE_DIR:-}" ]; then
  # The sources and the compiler are below this folder, whose own path must not enter the hash.
  export CCACHE_BASEDIR="${SRC_DIR%/*}" CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content
  # The cache's own counters are the user's, and include builds that run at the same time.
  export CCACHE_STATSLOG="${SRC_DIR%/*}/ccache-stats"
  : > "$CCACHE_STATSLOG"
else
  export VLLM_DISABLE_CCACHE=1
fi
# The environment is isolated: every flag in it comes from the compilers' packages, which the
# package's name covers.
export VLLM_RECIPE_BUILD=1
export VLLM_DISABLE_SCCACHE=1 VLLM_SKIP_VERSION_SUFFIX=1 VLLM_WERROR=1 CMAKE_BUILD_TYPE=Release
if [ "$VLLM_TARGET_DEVICE" = cpu ]; then
  export CMAKE_ARGS="${CMAKE_ARGS:-} -Dhwy_DIR=$SRC_DIR/host/lib/cmake/hwy"
fi

if [ "$VLLM_TARGET_DEVICE" = cuda ]; then
  # ccache hashes nvcc's two variables verbatim, including the folder of this build. The loop above
  # has checked the compiler's path, so its name suffices here; CCACHE_EXTRAFILES hashes its content.
  # Of paths on the command line ccache ignores the part below CCACHE_BASEDIR.
  # shellcheck disable=SC2155 # the loop above has found the compiler
  export NVCC_PREPEND_FLAGS="${NVCC_PREPEND_FLAGS//"-ccbin=$CXX"/"-ccbin=${CXX##*/}"}" CCACHE_EXTRAFILES="$(command -v "$CXX")"
  export CUDAFLAGS="${CUDAFLAGS:-} ${NVCC_APPEND_FLAGS//"$PREFIX"/"$SRC_DIR/host"}"
  unset NVCC_APPEND_FLAGS
  # The CUDA runtime is linked statically, so our package carries its license texts. The recipe takes
  # them from here.
  "$PREFIX/bin/python" "$SRC_DIR/recipe/copy_licenses.py" "$BUILD_PREFIX" 'cuda-cudart-static_*' "$SRC_DIR/licenses/cuda-cudart-static"
fi

if [ "$VLLM_TARGET_DEVICE" = rocm ]; then
  for package in hip-devel rocm-device-libs; do
    "$PREFIX/bin/python" "$SRC_DIR/recipe/copy_licenses.py" "$BUILD_PREFIX" "$package" "$SRC_DIR/licenses/$package"
  done
fi

"$PREFIX/bin/python" setup.py build_ext --build-lib "$SRC_DIR/stage"

if [ -n "${CCACHE_DIR:-}" ]; then
  for counter in direct_cache_hit preprocessed_cache_hit cache_miss; do
    echo "ccache $counter: $(grep -cx "$counter" "$CCACHE_STATSLOG" || true)"
  done
fi

(cd "$SRC_DIR/stage" && find vllm \( -name '*.so' -o -path 'vllm/_build_info/*.json' \) -print0) | while IFS= read -r -d '' file; do
  install -D "$SRC_DIR/stage/$file" "$SP_DIR/$file"
done
