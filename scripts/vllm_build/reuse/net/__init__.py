# SPDX-License-Identifier: Apache-2.0
"""Requests, downloads and the cache of reused files."""
