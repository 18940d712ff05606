# SPDX-License-Identifier: Apache-2.0
"""Solves, installs and checks conda environments."""
