# SPDX-License-Identifier: Apache-2.0
"""Conda packages: variants, rendering, building, channels and environments."""
