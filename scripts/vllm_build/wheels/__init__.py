# SPDX-License-Identifier: Apache-2.0
"""setuptools' side: the distribution, its commands and its requirements."""
