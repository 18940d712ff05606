# SPDX-License-Identifier: Apache-2.0
"""Wheels and .conda files, read and checked member by member."""
