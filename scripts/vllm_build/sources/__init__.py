# SPDX-License-Identifier: Apache-2.0
"""Third-party sources: locked, patched, and linked where compilers find them under stable paths."""
