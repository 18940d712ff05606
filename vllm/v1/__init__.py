# SPDX-License-Identifier: Apache-2.0
"""Upstream's module paths for what this package has of its engine."""
