# SPDX-License-Identifier: Apache-2.0
"""Third-party sources: locked, patched, and linked to stable paths in the build folder."""
