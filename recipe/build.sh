#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compiles the extensions of one output, VLLM_COMPONENTS, into $SRC_DIR/stage. What to build is decided by setup.py; nothing is decided here.
set -euo pipefail

# A compiler missing from the build environment would silently be the host's: PATH ends with the caller's.
for tool in "$CC" "$CXX" cmake ninja $([ "$VLLM_TARGET_DEVICE" != cuda ] || echo nvcc); do
  found=$(command -v "$tool" || true)
  case "$found" in
    "$BUILD_PREFIX"/*) echo "$tool: $found" ;;
    *) echo "error: $tool is '${found:-missing}', expected a program of the build environment $BUILD_PREFIX" >&2; exit 1 ;;
  esac
done

# The host prefix has a name as long as a path may be, and another one in every output folder. Reached through this link, headers have the same
# path relative to the work directory in every build: the compiler cache hits, and no such name gets into a binary.
ln -sfn "$PREFIX" "$SRC_DIR/host"
export CFLAGS="${CFLAGS//"$PREFIX"/"$SRC_DIR/host"}" CXXFLAGS="${CXXFLAGS//"$PREFIX"/"$SRC_DIR/host"}"

# The relinker of rattler-build knows the archive's layout, not the installed one: it puts such a path first, as DT_RPATH. The link step does the
# same, so that there is nothing left to rewrite and the sha256 in build_info stays that of the file; the paths that matter follow from CMake.
export LDFLAGS="$LDFLAGS -Wl,--disable-new-dtags -Wl,-rpath,'\$ORIGIN/$VLLM_RELINKED_RPATH'"

if [ -n "${CCACHE_DIR:-}" ] && ! { mkdir -p "$CCACHE_DIR" && [ -w "$CCACHE_DIR" ] && ccache --zero-stats > /dev/null; }; then
  echo "warning: compiling without ccache, which cannot use CCACHE_DIR=$CCACHE_DIR" >&2
  unset CCACHE_DIR
fi
if [ -n "${CCACHE_DIR:-}" ]; then
  # Sources and compiler lie below one folder, whose own place does not count.
  export CCACHE_BASEDIR="${SRC_DIR%/*}" CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content
else
  export VLLM_DISABLE_CCACHE=1
fi
# The environment is isolated: every flag in it comes from the compilers' packages, which the package's name covers.
export VLLM_RECIPE_BUILD=1
export VLLM_DISABLE_SCCACHE=1 VLLM_SKIP_VERSION_SUFFIX=1 VLLM_WERROR=1 CMAKE_BUILD_TYPE=Release
if [ "$VLLM_TARGET_DEVICE" = cpu ]; then
  export CMAKE_ARGS="${CMAKE_ARGS:-} -Dhwy_DIR=$SRC_DIR/host/lib/cmake/hwy"
fi

if [ "$VLLM_TARGET_DEVICE" = cuda ]; then
  # ccache hashes nvcc's two variables as they are, with the folder of this build in them. A program's name says the same as its path, which has
  # been checked; of folders on the command line ccache knows which part does not count. The host compiler's content counts by itself.
  # shellcheck disable=SC2155 # the loop above has found the compiler
  export NVCC_PREPEND_FLAGS="${NVCC_PREPEND_FLAGS//"-ccbin=$CXX"/"-ccbin=${CXX##*/}"}" CCACHE_EXTRAFILES="$(command -v "$CXX")"
  export CUDAFLAGS="${CUDAFLAGS:-} ${NVCC_APPEND_FLAGS//"$PREFIX"/"$SRC_DIR/host"}"
  unset NVCC_APPEND_FLAGS
  # Linked statically: its license goes with our libraries. The recipe takes the texts from here.
  "$PREFIX/bin/python" "$RECIPE_DIR/copy_licenses.py" "$BUILD_PREFIX" 'cuda-cudart-static_*' "$SRC_DIR/licenses/cuda-cudart-static"
fi

"$PREFIX/bin/python" setup.py build_ext --build-lib "$SRC_DIR/stage"

if [ -n "${CCACHE_DIR:-}" ]; then
  ccache --print-stats | awk '/^(direct_cache_hit|preprocessed_cache_hit|cache_miss)\t/ { print "ccache " $1 ": " $2 }'
fi
