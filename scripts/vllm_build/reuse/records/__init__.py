# SPDX-License-Identifier: Apache-2.0
"""Records of built outputs, parsed as untrusted input."""
