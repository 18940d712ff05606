# SPDX-License-Identifier: Apache-2.0
"""The setuptools part of a build: the distribution, its commands and its requirements."""
