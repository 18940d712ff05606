# SPDX-License-Identifier: Apache-2.0
"""What every part of the build needs: errors, files, locks, paths and output."""
