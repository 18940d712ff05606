# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

# clang looks in its resource folder, hipcc and older clangs below the root of ROCm.
mkdir -p "$PREFIX/lib/clang/22/lib/amdgcn" "$PREFIX/amdgcn"
cp -RL "$root/usr/lib/llvm-22/lib/clang/22/amdgcn/bitcode" "$PREFIX/lib/clang/22/lib/amdgcn/bitcode"
ln -s ../lib/clang/22/lib/amdgcn/bitcode "$PREFIX/amdgcn/bitcode"
