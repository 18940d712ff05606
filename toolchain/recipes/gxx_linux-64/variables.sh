# SPDX-License-Identifier: Apache-2.0
# What conda-forge's activation of the C++ compiler sets, in its names. gcc_linux-64 sets the rest.
_host="${CONDA_PREFIX}"
if [ "${CONDA_BUILD:-0}" = 1 ]; then _host="${PREFIX}"; fi
_tool="${CONDA_PREFIX}/bin/x86_64-conda-linux-gnu"
_map="-fdebug-prefix-map=${_host}=/usr/local/src/conda-prefix"
if [ "${CONDA_BUILD:-0}" = 1 ]; then _map="-fdebug-prefix-map=${SRC_DIR}=/usr/local/src/conda ${_map} -fdebug-prefix-map=${BUILD_PREFIX}=/usr/local/src/conda-build-prefix"; fi
CXX="${_tool}-g++"
GXX="${_tool}-g++"
CXX_FOR_BUILD="${_tool}-g++"
CXXFLAGS="-fvisibility-inlines-hidden -fmessage-length=0 -fPIC -fstack-protector-strong -fno-plt -O2 -ffunction-sections -pipe -isystem ${_host}/include ${_map}"
