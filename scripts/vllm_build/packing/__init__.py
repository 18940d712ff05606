# SPDX-License-Identifier: Apache-2.0
"""Builds packages from recipes with rattler-build and makes their bytes reproducible."""
