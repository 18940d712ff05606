# SPDX-License-Identifier: Apache-2.0
"""Replaces setuptools while pip downloads an sdist: see ``build_meta``."""
