# SPDX-License-Identifier: Apache-2.0
"""Upstream's engine: the locked sources, its place around our modules, and its metadata."""
