# SPDX-License-Identifier: Apache-2.0
"""Reads the environment variables of a build into one typed, frozen object."""
