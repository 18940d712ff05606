# SPDX-License-Identifier: Apache-2.0
"""Finds, verifies and installs compiled kernels by digest (build contract, section 7).

This package runs in pip's isolated build environment. It needs only the standard library and
packaging; reading a ``.conda`` file also needs zstandard, and signatures need securesystemslib.
"""
