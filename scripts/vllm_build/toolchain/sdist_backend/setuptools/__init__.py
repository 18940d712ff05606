# SPDX-License-Identifier: Apache-2.0
"""A stand-in for setuptools while pip downloads an sdist: see ``build_meta``."""
