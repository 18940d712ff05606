# SPDX-License-Identifier: Apache-2.0
"""The environment variables of a build: read once into one typed, frozen object."""
