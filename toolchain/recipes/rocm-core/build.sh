# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
. "$RECIPE_DIR/../common/unpack_debs.sh"

root=$SRC_DIR/debs
unpack_debs "$root"
keep_copyright "$root"

# Programs that look for ROCm read its release here, as below /opt/rocm.
mkdir -p "$PREFIX/.info" "$PREFIX/include/rocm-core"
printf '%s\n' "$PKG_VERSION" > "$PREFIX/.info/version"
IFS=. read -r major minor patch <<< "$PKG_VERSION"
cat > "$PREFIX/include/rocm-core/rocm_version.h" <<END
#pragma once
#define ROCM_VERSION_MAJOR $major
#define ROCM_VERSION_MINOR $minor
#define ROCM_VERSION_PATCH $patch
END
