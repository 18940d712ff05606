# SPDX-License-Identifier: Apache-2.0
"""Records of built outputs, read with the distrust that a file from elsewhere deserves."""
