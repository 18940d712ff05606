# SPDX-License-Identifier: Apache-2.0
"""Reuse of compiled kernels by their digest (build contract, section 7): stores, remote archives, checks, and how files get into a tree.

It runs in pip's isolated build environment: the standard library and packaging alone, zstandard
where a ``.conda`` file is read, and securesystemslib where a signature is made or checked.
"""
