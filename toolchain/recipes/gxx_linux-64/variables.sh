# SPDX-License-Identifier: Apache-2.0
# The variables that conda-forge's activation of the C++ compiler sets. gcc_linux-64 sets the others.
# Package tests set CONDA_BUILD too, but have only one prefix.
_building=0
if [ "${CONDA_BUILD:-0}" = 1 ] && [ -n "${BUILD_PREFIX:-}" ] && [ -n "${PREFIX:-}" ] && [ -n "${SRC_DIR:-}" ]; then _building=1; fi
_host="${CONDA_PREFIX}"
if [ "${_building}" = 1 ]; then _host="${PREFIX}"; fi
_tool="${CONDA_PREFIX}/bin/x86_64-conda-linux-gnu"
# -ffile-prefix-map covers __FILE__ and debug information, so that builds give the same bytes in every folder.
_map="-ffile-prefix-map=${_host}=/usr/local/src/conda-prefix"
if [ "${_building}" = 1 ]; then _map="-ffile-prefix-map=${SRC_DIR}=/usr/local/src/conda ${_map} -ffile-prefix-map=${BUILD_PREFIX}=/usr/local/src/conda-build-prefix"; fi
CXX="${_tool}-g++"
GXX="${_tool}-g++"
CXX_FOR_BUILD="${_tool}-g++"
CXXFLAGS="-fvisibility-inlines-hidden -fmessage-length=0 -fPIC -fstack-protector-strong -fno-plt -O2 -ffunction-sections -pipe -isystem ${_host}/include ${_map}"
